//! Which calls of which processes fail, with which errors, and during which activity.

use nix::errno::Errno;

/// The process that makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Supervisor,
    Ticker,
    Keeper,
    Receiver,
    Handler,
    Console,
    /// Forked by the supervisor, with no role yet.
    Beginner,
}

/// A system call, or several equivalent ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    numbers: &'static [i64],
}

impl Call {
    /// The call with this number and first arguments, if any row concerns it.
    pub(crate) fn of(number: i64, arguments: [u64; 2]) -> Option<Self> {
        let call = CALLS.iter().find(|call| call.numbers.contains(&number))?;
        // Of all commands of fcntl(2), only this one needs a resource.
        let duplicates = arguments[1] == libc::F_DUPFD_CLOEXEC as u64;
        (call.name != DUPLICATE.name || duplicates).then_some(*call)
    }

    pub(crate) fn all_numbers() -> impl Iterator<Item = i64> {
        CALLS.iter().flat_map(|call| call.numbers).copied()
    }
}

const fn call(name: &'static str, numbers: &'static [i64]) -> Call {
    Call { name, numbers }
}

pub(crate) const ACCEPT: Call = call("accept", &[libc::SYS_accept, libc::SYS_accept4]);
pub(crate) const FORK: Call = call(
    "fork",
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3],
);
pub(crate) const WAIT: Call = call("wait", &[libc::SYS_wait4, libc::SYS_waitid]);
pub(crate) const CLOSE_RANGE: Call = call("close_range", &[libc::SYS_close_range]);
pub(crate) const POLL: Call = call(
    "epoll_wait",
    &[
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_poll,
        libc::SYS_ppoll,
    ],
);
pub(crate) const NEW_POLL: Call = call("epoll_create", &[libc::SYS_epoll_create1]);
pub(crate) const POLL_FOR: Call = call("epoll_ctl", &[libc::SYS_epoll_ctl]);
pub(crate) const SIGNALFD: Call = call("signalfd", &[libc::SYS_signalfd, libc::SYS_signalfd4]);
pub(crate) const TIMERFD: Call = call("timerfd_create", &[libc::SYS_timerfd_create]);
pub(crate) const EVENTFD: Call = call("eventfd", &[libc::SYS_eventfd2]);
pub(crate) const RECEIVE: Call = call("recv", &[libc::SYS_recvfrom]);
pub(crate) const SEND: Call = call("send", &[libc::SYS_sendto]);
pub(crate) const RECEIVE_MESSAGE: Call = call("recvmsg", &[libc::SYS_recvmsg]);
pub(crate) const PASS: Call = call("sendmsg", &[libc::SYS_sendmsg]);
pub(crate) const READ: Call = call("read", &[libc::SYS_read]);
pub(crate) const OPEN: Call = call("open", &[libc::SYS_open, libc::SYS_openat]);
pub(crate) const STAT: Call = call("stat", &[libc::SYS_stat, libc::SYS_newfstatat, libc::SYS_statx]);
pub(crate) const PIDFD: Call = call("pidfd_open", &[libc::SYS_pidfd_open]);
pub(crate) const SOCKET: Call = call("socket", &[libc::SYS_socket]);
pub(crate) const LISTEN: Call = call("listen", &[libc::SYS_listen]);
pub(crate) const BIND: Call = call("bind", &[libc::SYS_bind]);
pub(crate) const SOCKET_PAIR: Call = call("socketpair", &[libc::SYS_socketpair]);
pub(crate) const DUPLICATE: Call = call("fcntl", &[libc::SYS_fcntl]);
pub(crate) const PIPE: Call = call("pipe", &[libc::SYS_pipe2]);
pub(crate) const MEMORY_FILE: Call = call("memfd_create", &[libc::SYS_memfd_create]);
pub(crate) const ASK_SOCKET: Call = call("getsockopt", &[libc::SYS_getsockopt]);
pub(crate) const EXECUTE: Call = call("execve", &[libc::SYS_execveat]);

const CALLS: &[Call] = &[
    ACCEPT,
    FORK,
    WAIT,
    CLOSE_RANGE,
    POLL,
    NEW_POLL,
    POLL_FOR,
    SIGNALFD,
    TIMERFD,
    EVENTFD,
    RECEIVE,
    SEND,
    RECEIVE_MESSAGE,
    PASS,
    READ,
    OPEN,
    STAT,
    PIDFD,
    SOCKET,
    LISTEN,
    BIND,
    SOCKET_PAIR,
    DUPLICATE,
    PIPE,
    MEMORY_FILE,
    ASK_SOCKET,
    EXECUTE,
];

/// The activity during which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Two players connect, play, chat, lose a connection and leave.
    Visit,
    /// The same, after a process of a role was killed.
    After(Role),
    /// An operator sends a query.
    Question,
    /// The server starts.
    Start,
    /// The server is upgraded in place.
    Upgrade,
    /// The server is upgraded, and every such call of the new program's role fails, until another upgrade
    /// begins.
    StalledUpgrade,
}

/// One row of the matrix: each of the calls fails with each of the errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) role: Role,
    pub(crate) call: Call,
    pub(crate) scene: Scene,
    pub(crate) errors: &'static [Errno],
    /// Whether the log must report it. Calls that are simply repeated, and ordinary ends of connections, need
    /// no report.
    pub(crate) is_told: bool,
    /// Calls beyond this one do not fail: by design the server cannot recover from that.
    pub(crate) nth_max: u32,
    /// Number of consecutive calls that fail.
    pub(crate) times: u32,
    /// The caller gets the error after a delay, in which other processes continue.
    pub(crate) is_late: bool,
}

impl Row {
    const fn up_to(self, nth_max: u32) -> Self {
        Self { nth_max, ..self }
    }

    const fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    const fn late(self) -> Self {
        Self {
            is_late: true,
            ..self
        }
    }
}

const fn told(role: Role, call: Call, scene: Scene, errors: &'static [Errno]) -> Row {
    Row {
        role,
        call,
        scene,
        errors,
        is_told: true,
        nth_max: u32::MAX,
        times: 1,
        is_late: false,
    }
}

const fn untold(role: Role, call: Call, scene: Scene, errors: &'static [Errno]) -> Row {
    Row {
        role,
        call,
        scene,
        errors,
        is_told: false,
        nth_max: u32::MAX,
        times: 1,
        is_late: false,
    }
}

use Errno::{
    EAGAIN, ECONNABORTED, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM, EPIPE,
    ETOOMANYREFS,
};
use Role::{Beginner, Console, Handler, Keeper, Receiver, Supervisor, Ticker};
use Scene::{After, Question, StalledUpgrade, Start, Upgrade, Visit};

const NO_DESCRIPTOR: &[Errno] = &[EMFILE, ENFILE, ENOMEM];

/// The whole matrix. `EAGAIN` is tried only where the kernel returns it despite pending work. An `EAGAIN`
/// that promises an event which never comes would be wrong.
pub(crate) const MATRIX: &[Row] = &[
    // Accepting connections.
    told(Receiver, ACCEPT, Visit, &[EMFILE, ENFILE, ENOMEM, ENOBUFS]),
    untold(Receiver, ACCEPT, Visit, &[EINTR, ECONNABORTED, EPERM]),
    untold(Receiver, POLL, Visit, &[EINTR]),
    // Passing sockets.
    told(Receiver, PASS, Visit, &[ENOMEM, ENOBUFS, ETOOMANYREFS]),
    untold(Receiver, PASS, Visit, &[EINTR, EAGAIN]),
    told(Receiver, PASS, Visit, &[EPIPE, ECONNRESET]),
    told(Keeper, RECEIVE_MESSAGE, Visit, &[ENOMEM, ENOBUFS]),
    untold(Keeper, RECEIVE_MESSAGE, Visit, &[EINTR]),
    untold(Keeper, POLL, Visit, &[EINTR]),
    // Forking handlers.
    told(Keeper, DUPLICATE, Visit, NO_DESCRIPTOR),
    told(Keeper, FORK, Visit, &[EAGAIN, ENOMEM]),
    told(Keeper, OPEN, Visit, NO_DESCRIPTOR),
    told(Keeper, STAT, Visit, &[ENOMEM]),
    // The child runs meanwhile.
    told(Keeper, OPEN, Visit, NO_DESCRIPTOR).late(),
    untold(Keeper, WAIT, Visit, &[EINTR]),
    untold(Keeper, READ, Visit, &[EINTR]),
    told(Keeper, PIDFD, Visit, NO_DESCRIPTOR),
    // A handler's own.
    told(Handler, CLOSE_RANGE, Visit, &[ENOMEM]),
    told(Handler, OPEN, Visit, NO_DESCRIPTOR),
    told(Handler, SIGNALFD, Visit, NO_DESCRIPTOR),
    told(Handler, NEW_POLL, Visit, NO_DESCRIPTOR),
    told(Handler, POLL_FOR, Visit, &[ENOMEM, ENOSPC]),
    untold(Handler, POLL, Visit, &[EINTR]),
    told(Handler, RECEIVE, Visit, &[ENOMEM]),
    untold(Handler, RECEIVE, Visit, &[EINTR, ECONNRESET]),
    told(Handler, SEND, Visit, &[ENOMEM, ENOBUFS]),
    untold(Handler, SEND, Visit, &[EINTR, EPIPE, ECONNRESET]),
    told(Handler, SOCKET_PAIR, Visit, NO_DESCRIPTOR),
    told(Handler, PASS, Visit, &[ENOMEM, ENOBUFS, ETOOMANYREFS]),
    untold(Handler, PASS, Visit, &[EINTR, EAGAIN]),
    told(Handler, RECEIVE_MESSAGE, Visit, &[ENOMEM, ENOBUFS]),
    untold(Handler, RECEIVE_MESSAGE, Visit, &[EINTR]),
    untold(Handler, READ, Visit, &[EINTR]),
    // The ticker's own.
    told(Ticker, RECEIVE_MESSAGE, Visit, &[ENOMEM, ENOBUFS]),
    untold(Ticker, RECEIVE_MESSAGE, Visit, &[EINTR]),
    told(Ticker, PASS, Visit, &[ENOMEM, ENOBUFS, ETOOMANYREFS]),
    untold(Ticker, PASS, Visit, &[EINTR, EAGAIN, EPIPE]),
    untold(Ticker, POLL, Visit, &[EINTR]),
    // A handler is taken over.
    told(Keeper, DUPLICATE, After(Handler), NO_DESCRIPTOR),
    told(Keeper, FORK, After(Handler), &[EAGAIN, ENOMEM]),
    told(Keeper, OPEN, After(Handler), NO_DESCRIPTOR),
    told(Keeper, OPEN, After(Handler), NO_DESCRIPTOR).late(),
    untold(Keeper, WAIT, After(Handler), &[EINTR]),
    told(Handler, ASK_SOCKET, After(Handler), &[ENOMEM, ENOBUFS]),
    told(Handler, CLOSE_RANGE, After(Handler), &[ENOMEM]),
    told(Handler, OPEN, After(Handler), NO_DESCRIPTOR),
    told(Handler, SIGNALFD, After(Handler), NO_DESCRIPTOR),
    told(Handler, POLL_FOR, After(Handler), &[ENOMEM]),
    // Roles are started again.
    told(Supervisor, FORK, After(Receiver), &[EAGAIN, ENOMEM]),
    told(Supervisor, OPEN, After(Ticker), NO_DESCRIPTOR),
    told(Supervisor, STAT, After(Ticker), &[ENOMEM]),
    untold(Supervisor, WAIT, After(Ticker), &[EINTR]),
    untold(Supervisor, READ, After(Ticker), &[EINTR]),
    untold(Supervisor, POLL, After(Ticker), &[EINTR]),
    told(Receiver, CLOSE_RANGE, After(Receiver), &[ENOMEM]),
    told(Receiver, NEW_POLL, After(Receiver), NO_DESCRIPTOR),
    told(Receiver, POLL_FOR, After(Receiver), &[ENOMEM]),
    told(Receiver, SIGNALFD, After(Receiver), NO_DESCRIPTOR),
    told(Receiver, DUPLICATE, After(Receiver), &[EMFILE]),
    told(Ticker, CLOSE_RANGE, After(Ticker), &[ENOMEM]),
    told(Ticker, NEW_POLL, After(Ticker), NO_DESCRIPTOR),
    told(Ticker, POLL_FOR, After(Ticker), &[ENOMEM]),
    told(Ticker, SIGNALFD, After(Ticker), NO_DESCRIPTOR),
    told(Ticker, TIMERFD, After(Ticker), NO_DESCRIPTOR),
    told(Ticker, OPEN, After(Ticker), NO_DESCRIPTOR),
    told(Keeper, CLOSE_RANGE, After(Keeper), &[ENOMEM]),
    told(Keeper, NEW_POLL, After(Keeper), NO_DESCRIPTOR),
    told(Keeper, POLL_FOR, After(Keeper), &[ENOMEM]),
    told(Keeper, SIGNALFD, After(Keeper), NO_DESCRIPTOR),
    // A keeper adopts.
    told(Keeper, PIDFD, After(Keeper), NO_DESCRIPTOR),
    told(Keeper, OPEN, After(Keeper), NO_DESCRIPTOR),
    told(Keeper, RECEIVE_MESSAGE, After(Keeper), &[ENOMEM, ENOBUFS]),
    told(Handler, PASS, After(Keeper), &[ENOMEM, ENOBUFS, ETOOMANYREFS]),
    untold(Handler, PASS, After(Keeper), &[EINTR, EAGAIN, EPIPE]),
    // An operator sends a query.
    told(Handler, CLOSE_RANGE, Question, &[ENOMEM]),
    told(Console, NEW_POLL, Question, NO_DESCRIPTOR),
    told(Console, POLL_FOR, Question, &[ENOMEM]),
    told(Handler, SIGNALFD, Question, NO_DESCRIPTOR),
    untold(Console, RECEIVE, Question, &[EINTR, ECONNRESET]),
    untold(Console, SEND, Question, &[EINTR, EPIPE, ECONNRESET]),
    untold(Console, POLL, Question, &[EINTR]),
    // A new program attaches the memory. (Once it runs, the supervisor cannot go back.)
    told(Supervisor, OPEN, Upgrade, NO_DESCRIPTOR).up_to(4),
    told(Supervisor, PIPE, Upgrade, NO_DESCRIPTOR),
    told(Supervisor, MEMORY_FILE, Upgrade, NO_DESCRIPTOR),
    told(Supervisor, POLL_FOR, Upgrade, &[ENOMEM]).up_to(1),
    told(Supervisor, FORK, Upgrade, &[EAGAIN, ENOMEM]),
    told(Beginner, EXECUTE, Upgrade, &[ENOMEM]),
    told(Supervisor, EXECUTE, Upgrade, &[ENOMEM]),
    // Keepers transfer their connections.
    untold(
        Keeper,
        PASS,
        Upgrade,
        &[ENOMEM, ENOBUFS, ETOOMANYREFS, EINTR, EAGAIN],
    ),
    told(Keeper, RECEIVE_MESSAGE, Upgrade, &[ENOMEM, ENOBUFS]),
    told(Keeper, PIDFD, Upgrade, NO_DESCRIPTOR),
    told(Ticker, CLOSE_RANGE, StalledUpgrade, &[ENOMEM]),
    told(Keeper, SIGNALFD, StalledUpgrade, &[EMFILE]),
    told(Keeper, NEW_POLL, StalledUpgrade, &[EMFILE]),
    told(Receiver, NEW_POLL, StalledUpgrade, &[EMFILE]),
    // The failure lasts.
    told(Keeper, PASS, Upgrade, &[ETOOMANYREFS]).times(10_000),
    told(Receiver, ACCEPT, Visit, &[EMFILE, ENOMEM]).times(4),
    told(Keeper, RECEIVE_MESSAGE, Visit, &[ENOMEM]).times(4),
    told(Ticker, RECEIVE_MESSAGE, Visit, &[ENOMEM]).times(20),
    told(Ticker, PASS, Visit, &[ENOBUFS]).times(4),
    told(Handler, SOCKET_PAIR, Visit, &[EMFILE]).times(4),
    told(Handler, PASS, Visit, &[ETOOMANYREFS]).times(20),
    told(Keeper, PIDFD, After(Keeper), &[EMFILE]).times(4),
    told(Handler, PASS, After(Keeper), &[ETOOMANYREFS]).times(8),
    told(Supervisor, FORK, After(Ticker), &[EAGAIN]).times(3),
    told(Receiver, SIGNALFD, After(Receiver), &[EMFILE]).times(3),
    // The server's start.
    told(Supervisor, SOCKET, Start, NO_DESCRIPTOR),
    told(Supervisor, BIND, Start, &[ENOMEM]),
    told(Supervisor, LISTEN, Start, &[ENOMEM]),
    told(Supervisor, MEMORY_FILE, Start, NO_DESCRIPTOR),
    told(Supervisor, PIPE, Start, NO_DESCRIPTOR),
    told(Supervisor, SOCKET_PAIR, Start, NO_DESCRIPTOR),
    told(Supervisor, EVENTFD, Start, NO_DESCRIPTOR),
    told(Supervisor, SIGNALFD, Start, NO_DESCRIPTOR),
    told(Supervisor, NEW_POLL, Start, NO_DESCRIPTOR),
    told(Supervisor, POLL_FOR, Start, &[ENOMEM]),
    told(Supervisor, FORK, Start, &[EAGAIN, ENOMEM]),
    told(Receiver, NEW_POLL, Start, NO_DESCRIPTOR),
    told(Keeper, NEW_POLL, Start, NO_DESCRIPTOR),
    told(Ticker, NEW_POLL, Start, NO_DESCRIPTOR),
];
