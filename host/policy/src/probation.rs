//! The first time of a new plugin, in which a fault brings the one before it back.
//!
//! ```text
//!                  `faults` faults, or the breaker opened
//!   OnProbation ------------------------------------------> Failed
//!        |
//!        +--- `answers` answers given and `time` over ----> Passed
//! ```

use std::time::Duration;

/// How long a new plugin is on probation. It takes answers and time: a kind that is seldom asked stays on probation
/// until it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationConfig {
    /// Valid answers it must give. Default 3.
    pub answers: u32,
    /// How long it lasts at least. Default 60 s.
    pub time: Duration,
    /// Faults that end it in failure; 0: only an open breaker does. Default 1.
    pub faults: u32,
}

impl Default for ProbationConfig {
    fn default() -> Self {
        Self { answers: 3, time: Duration::from_secs(60), faults: 1 }
    }
}

/// Where a probation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    OnProbation,
    /// The plugin stays.
    Passed,
    /// The one before it should come back.
    Failed,
}

/// One plugin's probation.
#[derive(Clone, Debug)]
pub struct Probation {
    config: ProbationConfig,
    ends: Duration,
    answers: u32,
    faults: u32,
}

impl Probation {
    /// Begins at `now`, on the caller's clock.
    pub fn new(config: ProbationConfig, now: Duration) -> Self {
        Self { config, ends: now.saturating_add(config.time), answers: 0, faults: 0 }
    }

    /// The plugin was asked: whether it gave a valid answer, and whether its breaker is open now.
    pub fn handle_outcome(&mut self, answered: bool, open: bool, now: Duration) -> Verdict {
        if answered {
            self.answers = self.answers.saturating_add(1);
        } else {
            self.faults = self.faults.saturating_add(1);
        }
        if open || self.config.faults > 0 && self.faults >= self.config.faults {
            Verdict::Failed
        } else if self.answers >= self.config.answers && now >= self.ends {
            Verdict::Passed
        } else {
            Verdict::OnProbation
        }
    }

    /// Valid answers that it still has to give.
    pub fn answers_left(&self) -> u32 {
        self.config.answers.saturating_sub(self.answers)
    }

    /// Faults that end it in failure; `None`: only an open breaker does.
    pub fn faults_left(&self) -> Option<u32> {
        (self.config.faults > 0).then(|| self.config.faults.saturating_sub(self.faults))
    }

    /// When its time is over, on the caller's clock.
    pub fn ends(&self) -> Duration {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_takes_answers_and_time() {
        let config = ProbationConfig { answers: 2, time: s(10), faults: 1 };
        let mut quick = Probation::new(config, s(100));
        assert_eq!(quick.handle_outcome(true, false, s(101)), Verdict::OnProbation);
        assert_eq!(quick.handle_outcome(true, false, s(102)), Verdict::OnProbation);
        assert_eq!((quick.answers_left(), quick.ends()), (0, s(110)));
        assert_eq!(quick.handle_outcome(true, false, s(110)), Verdict::Passed);
        let mut rare = Probation::new(config, s(100));
        assert_eq!(rare.handle_outcome(true, false, s(200)), Verdict::OnProbation);
        assert_eq!(rare.handle_outcome(false, false, s(201)), Verdict::Failed);
    }

    #[test]
    fn faults_may_be_forgiven_until_the_breaker_opens() {
        let mut patient = Probation::new(ProbationConfig { faults: 0, ..ProbationConfig::default() }, s(0));
        for _ in 0..5 {
            assert_eq!(patient.handle_outcome(false, false, s(1)), Verdict::OnProbation);
            assert_eq!(patient.faults_left(), None);
        }
        assert_eq!(patient.handle_outcome(false, true, s(1)), Verdict::Failed);
        let mut lenient = Probation::new(ProbationConfig { faults: 2, ..ProbationConfig::default() }, s(0));
        assert_eq!(lenient.faults_left(), Some(2));
        assert_eq!(lenient.handle_outcome(false, false, s(1)), Verdict::OnProbation);
        assert_eq!(lenient.faults_left(), Some(1));
        assert_eq!(lenient.handle_outcome(false, false, s(1)), Verdict::Failed);
    }
}
