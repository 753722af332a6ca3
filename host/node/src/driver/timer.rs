//! The driver's alarm: the runtime's timer counts in milliseconds, the core's acknowledgements and pacing in less.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// Waits below this take a timer of the kernel (timerfd_create(2)): one system call each.
const COARSE: Duration = Duration::from_millis(2);

pub(super) struct Alarm {
    fd: AsyncFd<TimerFd>,
    armed: Option<Instant>,
}

impl Alarm {
    /// # Errors
    /// The system call failed.
    pub(super) fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Alarm { fd: AsyncFd::with_interest(timer, tokio::io::Interest::READABLE)?, armed: None })
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
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            if self.fd.get_ref().set(expiration, TimerSetTimeFlags::empty()).is_err() {
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
