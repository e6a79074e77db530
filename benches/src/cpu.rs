//! What a process used of the CPU.

use std::fs;

/// What the kernel counts CPU time in: Linux shows all programs 100 to the second. Microseconds.
const CPU_TICK_US: u64 = 10_000;

/// CPU time that a process used so far, all its threads together. 0 if it is gone. Microseconds.
#[must_use]
pub fn cpu_us(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything. After it, user and system time are the 12th and 13th.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = fields.split_whitespace().skip(11).take(2);
    times.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * CPU_TICK_US
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn cpu_time_of_a_busy_process_grows() {
        let before = cpu_us(std::process::id());
        let until = Instant::now() + Duration::from_secs(20);
        while cpu_us(std::process::id()) < before + 3 * CPU_TICK_US {
            assert!(Instant::now() < until, "no CPU time is counted");
        }
        assert_eq!(cpu_us(u32::MAX), 0);
    }
}
