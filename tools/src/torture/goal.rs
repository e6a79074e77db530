//! When it is enough.

use std::time::Duration;

/// What has to be reached: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) time: Option<Duration>,
    /// Leaders killed.
    pub(super) kills: Option<u64>,
    /// Records acknowledged.
    pub(super) records: Option<u64>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) time: Duration,
    pub(super) kills: u64,
    pub(super) records: u64,
}

impl Goal {
    /// Whether it is enough.
    pub(super) fn is_reached(&self, reached: &Reached) -> bool {
        self.time.is_none_or(|time| reached.time >= time)
            && self.kills.is_none_or(|kills| reached.kills >= kills)
            && self.records.is_none_or(|records| reached.records >= records)
    }

    /// Whether leaders are still to be killed.
    pub(super) fn wants_kills(&self, reached: &Reached) -> bool {
        self.kills.is_some_and(|kills| reached.kills < kills)
    }

    /// Records to write before each step, if so many of them kill one leader on average: so both come to their ends
    /// together.
    pub(super) fn portion(&self, steps_per_kill: f64) -> Option<u64> {
        Some((self.records? as f64 / (self.kills? as f64 * steps_per_kill)) as u64 + 1)
    }

    /// How far it is, of a thousand: as far as that of which most is missing.
    pub(super) fn share(&self, reached: &Reached) -> u64 {
        let share = |reached: f64, wanted: f64| if wanted > 0.0 { reached / wanted } else { 1.0 };
        let time = self.time.map(|time| share(reached.time.as_secs_f64(), time.as_secs_f64()));
        let kills = self.kills.map(|kills| share(reached.kills as f64, kills as f64));
        let records = self.records.map(|records| share(reached.records as f64, records as f64));
        let least = [time, kills, records].into_iter().flatten().fold(1.0, f64::min);
        (least * 1000.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_asked_for_has_to_be_reached() {
        let goal = Goal { time: None, kills: Some(4), records: Some(100) };
        let at = |kills, records| Reached { time: Duration::ZERO, kills, records };
        assert!(
            !goal.is_reached(&at(4, 99)) && !goal.is_reached(&at(3, 100)) && goal.is_reached(&at(4, 100))
        );
        assert!(goal.wants_kills(&at(3, 100)) && !goal.wants_kills(&at(4, 0)));
        assert_eq!(
            (goal.portion(1.0), goal.share(&at(1, 90)), goal.share(&at(9, 900))),
            (Some(26), 250, 1000)
        );
        assert_eq!(goal.portion(5.0), Some(6));
        assert_eq!(Goal { kills: None, ..goal }.portion(1.0), None);
    }
}
