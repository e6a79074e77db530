//! Who else wants the machine: figures of one that is busy are worse than they should be, and not all alike.

use std::{fs, thread};

/// Programs that wanted to run in the last minute, on average; 0 if the system does not say.
#[must_use]
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// What is to be said of such a load before anything is measured: the bound is that of `sequor bench`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "processors of one machine")]
pub fn doubt(load_average: f64) -> Option<String> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (load_average > processors as f64 / 2.0).then(|| {
        format!(
            "the machine was busy before it began: load average {load_average:.1} on {processors} processors"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_doubtful() {
        assert!(load_average() >= 0.0);
        assert_eq!(doubt(0.0), None);
        assert!(doubt(1e6).unwrap().contains("load average 1000000.0 on "));
    }
}
