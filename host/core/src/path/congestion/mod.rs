//! Congestion control of one path: how much may be in flight, and how fast it leaves.

pub(crate) mod bbr;
mod cubic;

use core::time::Duration;

use crate::config::Congestion;
use crate::time::Instant;

use bbr::Bbr;
use cubic::Cubic;

/// Initial window in datagrams (RFC 9002 section 7.2).
const INITIAL_DATAGRAMS: usize = 10;
/// Minimum window in datagrams (RFC 9002 section 7.2).
const MINIMUM_DATAGRAMS: usize = 2;
/// On a slow path, a window that is still being found grows no further with a queue longer than this, though no round is
/// over.
const STANDING_QUEUE: Duration = Duration::from_millis(100);
/// Largest window in bytes.
const MAX_WINDOW: usize = 16 << 20;

/// What one acknowledgement tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) now: Instant,
    /// Bytes newly acknowledged.
    pub(crate) bytes: usize,
    /// Bytes in flight before and after it.
    pub(crate) in_flight: (usize, usize),
    /// When the newest of the packets was sent.
    pub(crate) sent_at: Instant,
    /// The window, or the pacer, held the sender back.
    pub(crate) limited: bool,
    /// A round trip is over: the newest was sent after the last one ended.
    pub(crate) round: bool,
    /// This acknowledgement's sample of the round trip, without the peer's delay.
    pub(crate) rtt: Option<Duration>,
    pub(crate) smoothed: Duration,
    /// Without a queue.
    pub(crate) min_rtt: Duration,
    /// How long the path's links need for a full datagram; zero: it is not known.
    pub(crate) passage: Duration,
    /// Bytes per second that arrived while the newest was under way.
    pub(crate) rate: u64,
    pub(crate) datagram: usize,
}

/// Why the window must shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Packets were lost.
    Loss { bytes: usize },
    /// Packets arrived marked CE (RFC 9002 section 7.1).
    Marked,
    /// Nothing arrived for several probe timeouts (RFC 9002 section 7.6).
    Persistent,
    /// All that was lost since the window shrank last came after all: it had been overtaken.
    Reordered,
}

/// The chosen controller.
#[derive(Debug)]
pub(crate) enum Controller {
    Cubic(Cubic),
    Bbr(Bbr),
}

impl Controller {
    pub(crate) fn new(congestion: Congestion) -> Self {
        match congestion {
            Congestion::Cubic => Controller::Cubic(Cubic::default()),
            Congestion::Bbr => Controller::Bbr(Bbr::default()),
        }
    }

    pub(crate) fn on_delivery(&mut self, delivery: &Delivery) {
        match self {
            Controller::Cubic(cubic) => cubic.on_delivery(delivery),
            Controller::Bbr(bbr) => bbr.on_delivery(delivery),
        }
    }

    /// `sent_at`: when the packet that shows it was sent.
    pub(crate) fn on_sign(&mut self, sign: Sign, sent_at: Instant, datagram: usize, now: Instant) {
        match self {
            Controller::Cubic(cubic) => cubic.on_sign(sign, sent_at, datagram, now),
            Controller::Bbr(bbr) => bbr.on_sign(sign, sent_at, datagram, now),
        }
    }

    /// The window that nothing is known for yet is no larger than this.
    pub(crate) fn start_at(&mut self, most: usize, datagram: usize) {
        let window = match self {
            Controller::Cubic(cubic) if cubic.slow_start() => &mut cubic.window,
            Controller::Bbr(bbr) => &mut bbr.window,
            Controller::Cubic(_) => return,
        };
        if most < INITIAL_DATAGRAMS * datagram
            && window.is_none_or(|held| held <= INITIAL_DATAGRAMS * datagram)
        {
            *window = Some(most);
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self, datagram: usize) -> usize {
        let window = match self {
            Controller::Cubic(cubic) => cubic.window(),
            Controller::Bbr(bbr) => bbr.window(),
        };
        window
            .map_or(initial_window(datagram), |window| window.clamp(MINIMUM_DATAGRAMS * datagram, MAX_WINDOW))
    }

    /// Bytes per second to send at, once a round trip was measured.
    pub(crate) fn pacing_rate(&self, smoothed: Duration, datagram: usize) -> u64 {
        match self {
            Controller::Cubic(cubic) => {
                // RFC 9002 section 7.7.
                let quarters = if cubic.slow_start() { 8 } else { 5 };
                rate(self.window(datagram) * quarters / 4, smoothed)
            }
            Controller::Bbr(bbr) => {
                bbr.pacing_rate().unwrap_or_else(|| rate(self.window(datagram) * 3, smoothed))
            }
        }
    }
}

/// Bytes that may be in flight before anything is known (RFC 9002 section 7.2).
pub(crate) fn initial_window(datagram: usize) -> usize {
    INITIAL_DATAGRAMS * datagram
}

/// `value` times `by / of`, on machines of any width.
fn scaled(value: usize, by: usize, of: usize) -> usize {
    let scaled = value as u128 * by as u128 / of.max(1) as u128;
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

/// Bytes per second.
pub(crate) fn rate(bytes: usize, time: Duration) -> u64 {
    let nanos = (time.as_nanos() as u64).max(1_000);
    (bytes as u64).saturating_mul(1_000_000_000) / nanos
}
