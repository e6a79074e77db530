//! Numbers and times for people: `34,924 records`, `1 batch`, `312 ms`.

use std::time::Duration;

/// A number with its thousands apart: 34,924.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: 1 record, 34,924 records.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{} {}", grouped(number), things(number, thing))
}

/// The same without thousands apart, where scripts may look for the number: 34924 records.
pub(crate) fn plain_count(number: u64, thing: &str) -> String {
    format!("{number} {}", things(number, thing))
}

/// The word for so many of them.
fn things(number: u64, thing: &str) -> String {
    let ending = match number {
        1 => "",
        _ if thing.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{thing}{ending}")
}

/// A time: 312 ms, 1.24 s.
pub(crate) fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{} ms", time.as_millis());
    }
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let told: Vec<_> = [0, 7, 999, 1000, 34_924, 1_234_567].map(grouped).to_vec();
        assert_eq!(told, ["0", "7", "999", "1,000", "34,924", "1,234,567"]);
    }

    #[test]
    fn one_thing_is_no_things() {
        assert_eq!(count(0, "line"), "0 lines");
        assert_eq!(count(1, "batch"), "1 batch");
        assert_eq!(count(350, "batch"), "350 batches");
        assert_eq!(count(34_924, "record"), "34,924 records");
        assert_eq!(plain_count(34_924, "record"), "34924 records");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(time(Duration::from_micros(312_700)), "312 ms");
        assert_eq!(time(Duration::from_millis(1236)), "1.24 s");
    }
}
