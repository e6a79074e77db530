//! What a process used of the CPU.

use std::fs;

/// What the kernel counts CPU time in: Linux shows all programs 100 to the second. Microseconds.
const CPU_TICK_US: u64 = 10_000;

/// CPU time that these processes used so far, all their threads together. None if there is none, or one of them is gone:
/// what the others used would be told as what all did. Microseconds.
#[must_use]
pub fn cpu_us(processes: &[u32]) -> Option<u64> {
    if processes.is_empty() {
        return None;
    }
    processes.iter().map(|process| one(*process)).sum()
}

fn one(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything. After it, user and system time are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(2);
    Some(times.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * CPU_TICK_US)
}

/// What was used from one look to the next. None if one of them saw nothing. Microseconds.
#[must_use]
pub fn used_us(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn cpu_time_of_a_busy_process_grows() {
        let own = [std::process::id()];
        let before = cpu_us(&own);
        let until = Instant::now() + Duration::from_secs(20);
        while used_us(before, cpu_us(&own)).unwrap() < 3 * CPU_TICK_US {
            assert!(Instant::now() < until, "no CPU time is counted");
        }
    }

    #[test]
    fn of_a_process_that_is_gone_nothing_is_known() {
        assert_eq!(cpu_us(&[std::process::id(), u32::MAX]), None);
        assert_eq!(cpu_us(&[]), None);
        assert_eq!([used_us(Some(5), None), used_us(None, Some(5)), used_us(Some(5), Some(3))], [None; 3]);
        assert_eq!(used_us(Some(5), Some(7)), Some(2));
    }
}
