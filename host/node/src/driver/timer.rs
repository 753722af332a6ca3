//! The driver's alarm, on a timer of the kernel (timerfd_create(2)): the runtime's own counts in milliseconds, wakes now
//! and then on the way to what is far, and wakes its own thread whenever something nearer comes.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// An alarm that turned out to be too near is moved away this often on average, and so far ahead of that: a few at a
/// time.
const POSTPONE: Duration = Duration::from_millis(1);
const POSTPONE_BURST: Duration = Duration::from_millis(8);
/// Where the kernel refuses, the driver looks this often.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Alarm {
    fd: AsyncFd<OwnedFd>,
    armed: Option<Instant>,
    /// Until when the postponements so far use up the average (a leaky bucket).
    postponed: Instant,
}

impl Alarm {
    /// # Errors
    /// The system call failed.
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for all types; an OwnedFd is the descriptor it says"
        )]
        let fd = AsyncFd::with_interest(timer, tokio::io::Interest::READABLE)?;
        Ok(Alarm { fd, armed: None, postponed: Instant::now() })
    }

    /// Waits until then, or less long. Cancel-safe.
    ///
    /// Deadlines move away with every message: an alarm that is nearer stays armed rather than costs a system call for
    /// each. Now and then it is moved all the same, so that a node with little to do does not wake in vain.
    pub(super) async fn wait(&mut self, until: Instant) {
        if self.armed.is_none_or(|armed| until < armed || armed + POSTPONE < until && self.may_postpone()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
            let times = Itimerspec { it_interval: once, it_value: value };
            if timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &times).is_err() {
                return tokio::time::sleep(PAUSE).await;
            }
            self.armed = Some(until);
        }
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn may_postpone(&mut self) -> bool {
        let now = Instant::now();
        let may = self.postponed < now + POSTPONE_BURST;
        if may {
            self.postponed = self.postponed.max(now) + POSTPONE;
        }
        may
    }

    /// Each expiry is a new edge: nothing needs to be read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) {
            guard.clear_ready();
        }
        self.armed = None;
        Poll::Ready(())
    }
}
