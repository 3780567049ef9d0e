//! The kernel's TCP connections, from `/proc/net/tcp`.

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    pub local_port: u16,
    pub remote_port: u16,
    /// The kernel's number of the state, as [`ESTABLISHED`].
    pub state: u8,
    /// Bytes that the other end has not acknowledged.
    pub unsent: u64,
    /// Bytes that this end's program has not read.
    pub unread: u64,
    /// 0 if no process owns it, for example while it waits to be accepted.
    pub inode: u64,
}

pub const ESTABLISHED: u8 = 1;
pub const CLOSE_WAIT: u8 = 8;

/// All ends of connections over IPv4 on this machine.
pub fn ends() -> Vec<End> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists connections");
    let lines = table.lines().skip(1);
    lines
        .map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} is no connection")))
        .collect()
}

/// The server's end of the connection from this client port.
pub fn server_end(server_port: u16, client_port: u16) -> Option<End> {
    let is_it = |end: &End| (end.local_port, end.remote_port) == (server_port, client_port);
    ends().into_iter().find(is_it)
}

fn parse(line: &str) -> Option<End> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let (unsent, unread) = fields.get(4)?.split_once(':')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(End {
        local_port: port(fields.get(1)?)?,
        remote_port: port(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        unsent: number(unsent)?,
        unread: number(unread)?,
        inode: fields.get(9)?.parse().ok()?,
    })
}
