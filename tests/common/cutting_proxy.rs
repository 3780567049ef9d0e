//! An unreliable network: a proxy between clients and the server that ends each connection after a random
//! number of bytes in either direction, at any byte.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::random::Random;

/// See the module's documentation. The proxy runs until the process ends.
#[derive(Clone)]
pub struct CuttingProxy {
    /// Where clients connect.
    pub address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    is_cutting: Arc<AtomicBool>,
}

impl CuttingProxy {
    /// Starts the proxy. While it is [cutting](Self::set_cutting), a connection carries at most `bytes_max` in
    /// each direction.
    pub fn start(server: SocketAddr, mut random: Random, bytes_max: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let proxy = Self {
            address: listener.local_addr().expect("bound"),
            cuts: Arc::default(),
            is_cutting: Arc::default(),
        };
        let this = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("it can be accepted");
                let server = TcpStream::connect(server).expect("the server accepts");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("an option can be set");
                }
                let pair = Arc::new(Pair {
                    ends: [client, server],
                    is_reset: AtomicBool::new(false),
                });
                for from in [0, 1] {
                    let (this, pair) = (this.clone(), Arc::clone(&pair));
                    let (bytes, reset) = (1 + random.below(bytes_max), random.chance(50));
                    std::thread::spawn(move || this.pump(&pair, from, bytes, reset));
                }
            }
        });
        proxy
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Turns the cutting of connections on or off.
    pub fn set_cutting(&self, is_cutting: bool) {
        self.is_cutting.store(is_cutting, Ordering::Relaxed);
    }

    fn pump(&self, pair: &Pair, from: usize, mut left: usize, reset: bool) {
        let mut buffer = [0; 2048];
        let (mut source, mut target) = (&pair.ends[from], &pair.ends[1 - from]);
        while left > 0 {
            let is_cutting = self.is_cutting.load(Ordering::Relaxed);
            let space = if is_cutting {
                left.min(buffer.len())
            } else {
                buffer.len()
            };
            match source.read(&mut buffer[..space]) {
                Ok(count @ 1..) if target.write_all(&buffer[..count]).is_ok() => {
                    left -= if is_cutting { count } else { 0 };
                }
                _ => {
                    // The connection ended by itself, or the other direction's thread ended it.
                    if !pair.is_reset.load(Ordering::SeqCst) {
                        let _ = target.shutdown(Shutdown::Write);
                    }
                    return;
                }
            }
        }
        self.cuts.fetch_add(1, Ordering::Relaxed);
        pair.is_reset.fetch_or(reset, Ordering::SeqCst);
        for end in &pair.ends {
            if reset {
                // The reset is sent when the other direction's thread, woken here, has closed its end as
                // well.
                let _ = SockRef::from(end).set_linger(Some(Duration::ZERO));
                let _ = end.shutdown(Shutdown::Read);
            } else {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

/// The two sockets that together form a client's connection to the server.
struct Pair {
    ends: [TcpStream; 2],
    is_reset: AtomicBool,
}
