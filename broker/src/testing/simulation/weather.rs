//! How good the network is.

use std::{ops::RangeInclusive, time::Duration};

use crate::sim::embedded;

/// How good the network of a simulated cluster is. Connections of clients are only delayed: what is lost there comes
/// later. Between brokers each message has its own fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// How long a message takes, each way: anything in this range, to a microsecond. At most an hour.
    pub delay: RangeInclusive<Duration>,
    /// Messages between brokers that are lost. Per thousand.
    pub lost_per_mille: u64,
    /// Messages between brokers that arrive twice. Per thousand.
    pub doubled_per_mille: u64,
    /// Messages that take ten times as long. Per thousand.
    pub late_per_mille: u64,
}

/// Longest delay that is simulated.
const DELAY_MAX: Duration = Duration::from_secs(3600);

impl Default for Weather {
    /// 50 to 500 microseconds, and nothing else: as a cluster begins.
    fn default() -> Self {
        let delay = Duration::from_micros(50)..=Duration::from_micros(500);
        Self { delay, lost_per_mille: 0, doubled_per_mille: 0, late_per_mille: 0 }
    }
}

impl Weather {
    /// The same with delays in this range.
    #[must_use]
    pub fn delay(mut self, delay: RangeInclusive<Duration>) -> Self {
        self.delay = delay;
        self
    }

    /// The same, but so many messages of a thousand between brokers are lost.
    #[must_use]
    pub fn lost(mut self, per_mille: u64) -> Self {
        self.lost_per_mille = per_mille;
        self
    }

    /// As the world has it. A range that is none is its beginning.
    pub(super) fn of_world(&self) -> embedded::Weather {
        let low = micros(*self.delay.start());
        embedded::Weather {
            delay_us: (low, micros(*self.delay.end()).max(low)),
            loss_per_mille: self.lost_per_mille,
            double_per_mille: self.doubled_per_mille,
            late_per_mille: self.late_per_mille,
        }
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.min(DELAY_MAX).as_micros()).expect("an hour has few microseconds")
}
