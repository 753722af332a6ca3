//! The driver's alarm: the runtime's timer counts in milliseconds, the core's acknowledgements and pacing in less.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Waits below this take a timer of the kernel (timerfd_create(2)): one system call each.
const COARSE: Duration = Duration::from_millis(2);

pub(super) struct Alarm {
    fd: AsyncFd<OwnedFd>,
    armed: Option<Instant>,
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
        Ok(Alarm { fd, armed: None })
    }

    /// Waits until then, or a little less long. Cancel-safe.
    pub(super) async fn wait(&mut self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if left > COARSE {
            return tokio::time::sleep_until(until.into()).await;
        }
        if left.is_zero() {
            return;
        }
        if self.armed != Some(until) {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec { tv_sec: 0, tv_nsec: left.as_nanos() as _ };
            let times = Itimerspec { it_interval: once, it_value: value };
            if timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &times).is_err() {
                return tokio::time::sleep_until(until.into()).await;
            }
            self.armed = Some(until);
        }
        std::future::poll_fn(|cx| self.poll(cx)).await;
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
