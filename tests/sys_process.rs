//! Processes: forking, identity, reaping, lifelines, signals, descriptors and doorbells between real processes.
//!
//! These tests fork, which only a process with one thread may do: hence no test harness, but a list of functions. An
//! argument selects those whose name contains it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade::testing::state::layout::{Capacity, Memory};
use forkade::testing::state::rooms::RoomRecord;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem::sys::eventfd::EventFd;
use shmem::sys::process::{
    self, EXIT_STATUS_PANIC, Exit, ForkError, NewProcess, ProcessId, Reaped, lifeline, reap,
};
use shmem::sys::signals::{self, Signal, Signals};
use shmem::sys::sockets::{Channel, ChannelError, ReceiveOutcome, SendOutcome};
use shmem::transaction::{Attachment, Record};

macro_rules! claims {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

fn main() {
    let selection = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let claims: &[(&str, fn())] = claims![
        a_process_with_a_second_thread_must_not_fork,
        a_child_that_panics_ends_with_101_and_reports,
        a_child_never_runs_its_parents_destructors,
        what_a_child_owns_is_closed_in_its_parent,
        all_dead_children_are_reaped_and_each_once,
        orphans_come_to_the_subreaper,
        a_process_is_told_from_another_with_its_pid,
        a_dead_process_is_not_alive_even_before_it_is_reaped,
        only_the_kept_descriptors_stay_open,
        a_killed_holder_cuts_the_lifeline,
        an_inherited_signalfd_reads_the_childs_own_signals,
        a_childs_own_signals_replace_the_inherited_ones,
        the_end_of_a_child_arrives_as_a_signal,
        a_broken_pipe_is_an_error,
        descriptors_lost_to_the_open_file_limit_are_an_error,
        a_ring_wakes_every_listening_process_every_time,
        limits_and_names_are_set,
        an_abort_leaves_no_core_dump,
        a_child_that_uses_its_parents_attachment_is_refused_before_it_takes_a_lock,
    ];
    for (name, claim) in claims.iter().filter(|(name, _)| name.contains(&selection)) {
        claim();
        assert_eq!(reap().next(), None, "{name} left a child behind");
        println!("{name} ... ok");
    }
}

fn a_process_with_a_second_thread_must_not_fork() {
    // In a child, for a thread is not gone the moment it is joined.
    let child = spawn(|_| {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || wait.recv());
        let refused = process::fork(no_report, |_| 0);
        assert!(matches!(refused, Err(ForkError::HasThreads)));
        drop(release);
        second.join().expect("no panic").expect_err("nothing was sent");
        0
    });
    assert_ends(child, Exit::Code(0));
}

fn a_child_that_panics_ends_with_101_and_reports() {
    static REPORTED: OnceLock<EventFd> = OnceLock::new();
    let doorbell = REPORTED.get_or_init(|| EventFd::new().expect("a descriptor"));
    let report = || REPORTED.get().expect("set before the fork").ring();
    let child = quietly(|| process::fork(report, |_| panic!("on purpose")));
    assert_ends(child.expect("forks"), Exit::Code(EXIT_STATUS_PANIC));
    assert!(doorbell.clear());
}

fn a_child_never_runs_its_parents_destructors() {
    struct RingsWhenDropped<'a>(&'a EventFd);
    impl Drop for RingsWhenDropped<'_> {
        fn drop(&mut self) {
            self.0.ring();
        }
    }
    let doorbell = EventFd::new().expect("a descriptor");
    let parents = RingsWhenDropped(&doorbell);
    assert_ends(spawn(|_| 0), Exit::Code(0));
    let nothing_to_say: fn() = no_report;
    for report in [nothing_to_say, || panic!("in the report")] {
        let panicking = quietly(|| process::fork(report, |_| panic!("on purpose")));
        assert_ends(panicking.expect("forks"), Exit::Code(EXIT_STATUS_PANIC));
    }
    assert!(!doorbell.clear());
    drop(parents);
    assert!(doorbell.clear());
}

fn what_a_child_owns_is_closed_in_its_parent() {
    let (ours, theirs) = Channel::pair().expect("descriptors");
    let child = spawn(move |_| {
        assert_eq!(theirs.send(b"hello", &[]).expect("sends"), SendOutcome::Sent);
        0
    });
    assert_ends(child, Exit::Code(0));
    assert!(matches!(
        ours.receive(&mut [0; 8]),
        Ok(ReceiveOutcome::Message { bytes: 5, .. })
    ));
    assert!(matches!(ours.receive(&mut [0; 8]), Ok(ReceiveOutcome::PeerGone)));
}

fn all_dead_children_are_reaped_and_each_once() {
    let stay = EventFd::new().expect("a descriptor");
    let mut expected = Vec::new();
    for number in 0..40_u8 {
        let killed = number % 4 == 0;
        let child = spawn(|_| {
            if killed {
                wait_readable(&stay);
            }
            number
        });
        if killed {
            assert!(child.send_signal(Signal::SIGKILL).expect("signals"));
        }
        let exit = if killed {
            Exit::Signal(Signal::SIGKILL as i32)
        } else {
            Exit::Code(number)
        };
        expected.push(Reaped { pid: child.pid, exit });
    }
    let bystander = spawn(|_| {
        wait_readable(&stay);
        0
    });
    let mut reaped = Vec::new();
    while reaped.len() < expected.len() {
        reaped.extend(reap());
        std::thread::yield_now();
    }
    reaped.sort_by_key(|dead| dead.pid);
    expected.sort_by_key(|dead| dead.pid);
    assert_eq!(reaped, expected);
    assert_eq!(reap().next(), None);
    assert!(bystander.is_alive().expect("/proc"));
    stay.ring();
    assert_ends(bystander, Exit::Code(0));
}

fn orphans_come_to_the_subreaper() {
    process::become_subreaper().expect("prctl");
    let (ours, theirs) = Channel::pair().expect("descriptors");
    let child = spawn(move |_| {
        let orphan = spawn(|_| 77);
        assert_eq!(
            theirs.send(&orphan.pid.to_ne_bytes(), &[]).expect("sends"),
            SendOutcome::Sent
        );
        0
    });
    let mut pid = [0; 4];
    wait_readable(&ours);
    assert!(matches!(
        ours.receive(&mut pid),
        Ok(ReceiveOutcome::Message { bytes: 4, .. })
    ));
    assert_ends(child, Exit::Code(0));
    let orphan = loop {
        if let Some(dead) = reap().next() {
            break dead;
        }
        std::thread::yield_now();
    };
    assert_eq!(
        orphan,
        Reaped {
            pid: u32::from_ne_bytes(pid),
            exit: Exit::Code(77)
        }
    );
}

fn a_process_is_told_from_another_with_its_pid() {
    let stay = EventFd::new().expect("a descriptor");
    let (ours, theirs) = Channel::pair().expect("descriptors");
    let child = spawn(|_| {
        let me = ProcessId::current();
        assert_eq!(
            theirs.send(&me.start_time.to_ne_bytes(), &[]).expect("sends"),
            SendOutcome::Sent
        );
        wait_readable(&stay);
        0
    });
    assert!(child.is_alive().expect("/proc"));
    let mut start_time = [0; 8];
    wait_readable(&ours);
    assert!(matches!(
        ours.receive(&mut start_time),
        Ok(ReceiveOutcome::Message { bytes: 8, .. })
    ));
    assert_eq!(
        child.start_time,
        u64::from_ne_bytes(start_time),
        "parent and child agree"
    );

    let earlier = ProcessId {
        start_time: child.start_time - 1,
        ..child
    };
    assert!(!earlier.is_alive().expect("/proc"));
    assert!(!earlier.send_signal(Signal::SIGKILL).expect("/proc"));
    assert!(earlier.open_pidfd().expect("/proc").is_none());
    assert!(earlier.wait().is_err());
    for nobody in [0, u32::MAX] {
        assert!(
            !ProcessId { pid: nobody, ..child }
                .send_signal(Signal::SIGKILL)
                .expect("/proc")
        );
    }
    stay.ring();
    assert_ends(child, Exit::Code(0));
    assert!(child.wait().is_err(), "reaped already");
    assert!(!child.send_signal(Signal::SIGKILL).expect("/proc"));
}

fn a_dead_process_is_not_alive_even_before_it_is_reaped() {
    assert!(ProcessId::current().is_alive().expect("/proc"));
    let stay = EventFd::new().expect("a descriptor");
    let child = spawn(|_| {
        wait_readable(&stay);
        0
    });
    let pidfd = child.open_pidfd().expect("a descriptor").expect("it is there");
    assert!(child.send_signal(Signal::SIGKILL).expect("signals"));
    wait_readable(&pidfd);
    assert!(!child.is_alive().expect("/proc"));
    assert!(
        child.open_pidfd().expect("a descriptor").is_some(),
        "not reaped: it can still be named"
    );
    assert_ends(child, Exit::Signal(Signal::SIGKILL as i32));
    assert!(!child.is_alive().expect("/proc"));
    assert!(child.open_pidfd().expect("a descriptor").is_none());
}

fn keep_only(new: &NewProcess, keep: &[BorrowedFd<'_>]) {
    // SAFETY: the child of a test uses only these, and ends without running destructors of what its parent has.
    unsafe { new.close_all_except(keep) }.expect("closes");
}

fn only_the_kept_descriptors_stay_open() {
    let doorbells: Vec<EventFd> = (0..20).map(|_| EventFd::new().expect("a descriptor")).collect();
    let keep = [
        doorbells[17].as_fd(),
        doorbells[3].as_fd(),
        doorbells[4].as_fd(),
        doorbells[3].as_fd(),
    ];
    let child = spawn(|new| {
        keep_only(&new, &keep);
        // The one with which the directory is read is open, too.
        assert_eq!(open_files(), 3 + 3 + 1);
        keep.iter()
            .for_each(|kept| assert!(rustix::io::fcntl_getfd(kept).is_ok()));
        assert!(rustix::io::fcntl_getfd(&doorbells[5]).is_err());
        doorbells[17].ring();
        0
    });
    assert_ends(child, Exit::Code(0));
    assert!(doorbells[17].clear());
    assert_ends(
        spawn(|new| {
            keep_only(&new, &[]);
            u8::from(open_files() != 3 + 1)
        }),
        Exit::Code(0),
    );
}

fn a_killed_holder_cuts_the_lifeline() {
    let (holder, line) = lifeline().expect("descriptors");
    let stay = EventFd::new().expect("a descriptor");
    let dependent = spawn(|new| {
        keep_only(&new, &[line.as_fd()]);
        wait_readable(&line);
        if line.is_cut().expect("polls") { 7 } else { 8 }
    });
    let supervisor = spawn(move |_| {
        let _holder = holder;
        wait_readable(&stay);
        0
    });
    assert!(!line.is_cut().expect("polls"));
    assert!(dependent.is_alive().expect("/proc"));
    assert!(supervisor.send_signal(Signal::SIGKILL).expect("signals"));
    assert_ends(supervisor, Exit::Signal(Signal::SIGKILL as i32));
    assert_ends(dependent, Exit::Code(7));
    assert!(line.is_cut().expect("polls"));
}

fn an_inherited_signalfd_reads_the_childs_own_signals() {
    let signals = Signals::block(&[Signal::SIGUSR1]).expect("a descriptor");
    let child = spawn(|_| {
        let me = ProcessId::current();
        assert_eq!(signals.read().expect("reads"), None);
        assert!(me.send_signal(Signal::SIGUSR1).expect("signals"));
        let received = signals.read().expect("reads").expect("a signal");
        assert_eq!((received.signal, received.sender_pid), (Signal::SIGUSR1, me.pid));
        0
    });
    assert_ends(child, Exit::Code(0));
    assert_eq!(signals.read().expect("reads"), None);
    signals::unblock_all().expect("unblocks");
}

fn a_childs_own_signals_replace_the_inherited_ones() {
    let parents = Signals::block(&[Signal::SIGUSR1]).expect("a descriptor");
    let child = spawn(|_| {
        let me = ProcessId::current();
        let own = Signals::block(&[Signal::SIGTERM]).expect("a descriptor");
        assert!(me.send_signal(Signal::SIGTERM).expect("signals"));
        wait_readable(&own);
        assert_eq!(
            own.read().expect("reads").expect("a signal").signal,
            Signal::SIGTERM
        );
        assert!(me.send_signal(Signal::SIGUSR1).expect("signals"));
        0
    });
    assert_ends(child, Exit::Signal(Signal::SIGUSR1 as i32));
    let unblocking = spawn(|_| {
        assert!(
            ProcessId::current()
                .send_signal(Signal::SIGUSR1)
                .expect("signals")
        );
        signals::unblock_all().expect("unblocks");
        0
    });
    assert_ends(unblocking, Exit::Signal(Signal::SIGUSR1 as i32));
    assert_eq!(parents.read().expect("reads"), None);
    signals::unblock_all().expect("unblocks");
}

fn the_end_of_a_child_arrives_as_a_signal() {
    let signals = Signals::block(&[Signal::SIGCHLD]).expect("a descriptor");
    let child = spawn(|_| 0);
    wait_readable(&signals);
    let received = signals.read().expect("reads").expect("a signal");
    assert_eq!(
        (received.signal, received.sender_pid),
        (Signal::SIGCHLD, child.pid)
    );
    assert_ends(child, Exit::Code(0));
    signals::unblock_all().expect("unblocks");
}

fn a_broken_pipe_is_an_error() {
    let child = spawn(|_| {
        signals::ignore_broken_pipes().expect("sigaction");
        let (read_end, write_end) = rustix::pipe::pipe().expect("descriptors");
        drop(read_end);
        assert_eq!(rustix::io::write(&write_end, b"x"), Err(rustix::io::Errno::PIPE));
        0
    });
    assert_ends(child, Exit::Code(0));
}

fn descriptors_lost_to_the_open_file_limit_are_an_error() {
    let (ours, theirs) = Channel::pair().expect("descriptors");
    let doorbell = EventFd::new().expect("a descriptor");
    let child = spawn(move |_| {
        wait_readable(&theirs);
        let before = open_files();
        let limits = getrlimit(Resource::Nofile);
        let next_free = u64::try_from(first_free_descriptor()).expect("not negative");
        // Room for one descriptor of two: that one must not leak.
        let only_one_more = Rlimit {
            current: Some(next_free + 1),
            ..limits
        };
        setrlimit(Resource::Nofile, only_one_more).expect("lowers");
        let lost = theirs.receive(&mut [0; 8]);
        assert!(
            matches!(lost, Err(ChannelError::DescriptorsLost { bytes: 4 })),
            "{lost:?}"
        );
        let refused = process::fork(no_report, |_| 0).expect("one descriptor is enough to fork");
        assert_ends(refused, Exit::Code(0));
        setrlimit(Resource::Nofile, limits).expect("raises");
        assert_eq!(open_files(), before);
        0
    });
    let sent = ours.send(b"both", &[doorbell.as_fd(), doorbell.as_fd()]);
    assert_eq!(sent.expect("sends"), SendOutcome::Sent);
    assert_ends(child, Exit::Code(0));
}

fn a_ring_wakes_every_listening_process_every_time() {
    const LISTENERS: usize = 8;
    const RINGS: u8 = 100;
    let doorbell = EventFd::new().expect("a descriptor");
    let listeners: Vec<(ProcessId, Channel)> = (0..LISTENERS)
        .map(|_| {
            let (ours, theirs) = Channel::pair().expect("descriptors");
            let doorbell = &doorbell;
            let child = spawn(move |new| {
                keep_only(&new, &[doorbell.as_fd(), theirs.as_fd()]);
                let poll = epoll::create(CreateFlags::CLOEXEC).expect("a descriptor");
                let edges = EventFlags::IN | EventFlags::ET;
                epoll::add(&poll, doorbell, EventData::new_u64(0), edges).expect("registers");
                for ring in 0..=RINGS {
                    assert_eq!(theirs.send(&[ring], &[]).expect("sends"), SendOutcome::Sent);
                    if ring < RINGS {
                        let mut events = [MaybeUninit::uninit(); 1];
                        let (heard, _) = epoll::wait(&poll, &mut events, None).expect("waits");
                        assert_eq!(heard.len(), 1);
                    }
                }
                0
            });
            (child, ours)
        })
        .collect();
    for ring in 0..=RINGS {
        // All have answered the ring before, so all will hear this one or be lost.
        for (_, channel) in &listeners {
            let mut answer = [0];
            wait_readable(channel);
            assert!(matches!(
                channel.receive(&mut answer),
                Ok(ReceiveOutcome::Message { bytes: 1, .. })
            ));
            assert_eq!(answer, [ring]);
        }
        doorbell.ring();
    }
    for (listener, _) in listeners {
        assert_ends(listener, Exit::Code(0));
    }
}

fn limits_and_names_are_set() {
    let child = spawn(|_| {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(64),
                maximum: hard,
            },
        )
        .expect("lowers");
        assert_eq!(process::raise_open_file_limit().expect("raises"), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
        process::set_name("fk-handler").expect("names");
        assert_eq!(
            std::fs::read_to_string("/proc/self/comm").expect("/proc"),
            "fk-handler\n"
        );
        assert!(process::set_name("a\0b").is_err());
        process::exit_now(42)
    });
    assert_ends(child, Exit::Code(42));
}

fn an_abort_leaves_no_core_dump() {
    let directory = std::env::temp_dir().join(format!("forkade-core-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("creates");
    let child = spawn(|_| {
        let hard = getrlimit(Resource::Core).maximum;
        setrlimit(
            Resource::Core,
            Rlimit {
                current: hard,
                maximum: hard,
            },
        )
        .expect("raises");
        process::disable_core_dumps().expect("lowers");
        std::env::set_current_dir(&directory).expect("enters");
        std::process::abort()
    });
    assert_ends(child, Exit::Signal(Signal::SIGABRT as i32));
    // Fails if anything was left in it.
    std::fs::remove_dir(&directory).expect("empty");
}

fn no_report() {}

fn spawn(child: impl FnOnce(NewProcess) -> u8) -> ProcessId {
    process::fork(no_report, child).expect("forks")
}

/// Panics that are meant to happen are not to be shown.
fn quietly<R>(run: impl FnOnce() -> R) -> R {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(shown);
    result
}

fn assert_ends(child: ProcessId, exit: Exit) {
    assert_eq!(child.wait().expect("a child of ours"), exit);
}

/// Waits until a descriptor has something to read, or the end.
fn wait_readable(descriptor: &impl AsFd) {
    let mut poll = [PollFd::new(descriptor, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)).expect("polls");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn first_free_descriptor() -> i32 {
    use std::os::fd::AsRawFd;
    let probe: io::Result<OwnedFd> = BorrowedFd::try_clone_to_owned(&io::stdin().as_fd());
    probe.expect("a descriptor").as_raw_fd()
}

fn a_child_that_uses_its_parents_attachment_is_refused_before_it_takes_a_lock() {
    let capacity = Capacity {
        players: 1,
        rooms: 1,
        keepers: 1,
    };
    let memory = Memory::create(capacity).expect("there is memory");
    let room = memory.rooms.at(0);
    room.lock().prepare();
    let mut parents = memory.attach();
    let began: [fn(&mut Attachment, &'static RoomRecord) -> bool; 2] = [
        |attachment, room| attachment.begin(room).commit().is_ok(),
        |attachment, room| attachment.try_begin(room, Duration::ZERO).is_some(),
    ];
    for begin in began {
        let child = quietly(|| process::fork(no_report, |_| u8::from(!begin(&mut parents, room))));
        assert_ends(child.expect("forks"), Exit::Code(EXIT_STATUS_PANIC));
    }
    // The child may have one of its own, and the parent keeps this one.
    assert_ends(
        spawn(|_| u8::from(!began[0](&mut memory.attach(), room))),
        Exit::Code(0),
    );
    assert!(began[0](&mut parents, room));
    // No transaction of a child was left open.
    assert_eq!(memory.header.recoveries_total.load(Ordering::Relaxed), 0);
}
