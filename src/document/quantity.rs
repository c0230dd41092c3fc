//! Durations, sizes and rates: numbers that carry their unit.

use std::time::Duration;

use crate::message::Malformed;

/// The longest duration that a file may name: ten years. More is a slip, and milliseconds since the
/// epoch plus this still fit every store.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads a duration with its unit: `250ms`, `10m`, `1h 30m`. Zero is `0s`.
pub fn parse_duration(text: &str) -> Result<Duration, Malformed> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed("a duration needs a unit: \"250ms\", \"10s\", \"10m\" or \"24h\""));
    }
    match humantime::parse_duration(trimmed) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err(Malformed("a duration is at most ten years")),
        Err(_) => Err(Malformed("not a duration; write \"250ms\", \"10s\", \"10m\" or \"24h\"")),
    }
}

/// Writes a duration in its largest whole unit, hours at most: `24h`, `90s`, `250ms`.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return humantime::format_duration(duration).to_string();
    }
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") }
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size in bytes with its unit: `64KiB`, `1MiB`, `512B`; `kB`, `MB` and `GB` are decimal.
pub fn parse_size(text: &str) -> Result<u64, Malformed> {
    let bad = Malformed("not a size; write \"512B\", \"64KiB\" or \"1MiB\"");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim_start());
    if unit.is_empty() && digits > 0 {
        return Err(Malformed("a size needs a unit: \"512B\", \"64KiB\" or \"1MiB\""));
    }
    let number: u64 = number.parse().map_err(|_| bad.clone())?;
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(bad)?;
    number.checked_mul(*factor).ok_or(Malformed("the size is too large"))
}

/// Writes a size in its largest whole binary unit: `64KiB`.
pub fn size_text(bytes: u64) -> String {
    for (unit, size) in &SIZE_UNITS[..3] {
        if bytes > 0 && bytes.is_multiple_of(*size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// So many in a second, a minute or an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    count: u32,
    per: Duration,
}

const FREQUENCY_UNITS: [(char, u64); 3] = [('s', 1), ('m', 60), ('h', 3600)];

impl Frequency {
    /// The time that one takes, in whole microseconds, rounded up so that the rate is never exceeded.
    pub fn interval(&self) -> Duration {
        let micros = self.per.as_micros().div_ceil(u128::from(self.count));
        Duration::from_micros(u64::try_from(micros).expect("an hour of microseconds fits"))
    }

    /// One second's worth, rounded down, but at least one.
    pub fn per_second(&self) -> u32 {
        let per = u32::try_from(self.per.as_secs()).expect("an hour of seconds fits");
        (self.count / per).max(1)
    }

    /// How a rate with this `interval` is written: `10/s`. An interval that no whole number in a
    /// second, minute or hour makes is written as one in so long.
    pub fn text(interval: Duration) -> String {
        for (unit, seconds) in FREQUENCY_UNITS {
            let per = Duration::from_secs(seconds);
            let count = per.as_micros() / interval.as_micros().max(1);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            // Rounding up on the way in can make the quotient one too small on the way out.
            for count in [count, count.saturating_add(1)] {
                if count > 0 && (Self { count, per }).interval() == interval {
                    return format!("{count}/{unit}");
                }
            }
        }
        format!("1 in {}", duration_text(interval))
    }
}

/// Reads a rate: `10/s`, `90/m` or `1000/h`, or `off` for no limit (`None`). At most a million a second.
pub fn parse_frequency(text: &str) -> Result<Option<Frequency>, Malformed> {
    let bad = Malformed("not a rate; write \"10/s\", \"90/m\", \"1000/h\" or \"off\"");
    let trimmed = text.trim();
    if trimmed == "off" {
        return Ok(None);
    }
    let (count, unit) = trimmed.split_once('/').ok_or(bad.clone())?;
    let unit = unit.trim_start();
    let (_, seconds) = FREQUENCY_UNITS
        .into_iter()
        .find(|(name, _)| unit.strip_prefix(*name) == Some(""))
        .ok_or(bad.clone())?;
    let count = count.trim_end();
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad);
    }
    let too_much = Malformed("a rate is at most 1000000/s; \"off\" is no limit");
    let count: u32 = count.parse().map_err(|_| too_much.clone())?;
    if count == 0 {
        return Err(Malformed("a rate is at least one; \"off\" is no limit"));
    }
    if u64::from(count) > seconds * 1_000_000 {
        return Err(too_much);
    }
    Ok(Some(Frequency { count, per: Duration::from_secs(seconds) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("1h 30m", 5_400_000),
            ("0s", 0),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in
            ["", " ", "10", "0", "-1s", "ten", "10 parsecs", "11y", "99999999999999999999y", "s", "1.s"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert!(parse_duration("10").unwrap_err().0.contains("unit"));
    }

    #[test]
    fn durations_are_written_in_their_largest_whole_unit() {
        for text in ["24h", "10m", "90s", "250ms", "0s", "1h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_carry_a_unit() {
        for (text, bytes) in
            [("64KiB", 65_536), ("1MiB", 1 << 20), ("512B", 512), ("2 kB", 2_000), ("1mb", 1_000_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "64", "KiB", "-1B", "1.5KiB", "64K", "99999999999999999999B", "20000000000GiB", "é"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(size_text(65_536), "64KiB");
        assert_eq!(size_text(1_000), "1000B");
    }

    #[test]
    fn rates_are_so_many_a_second_minute_or_hour_or_off() {
        let interval = |text: &str| parse_frequency(text).unwrap().unwrap().interval();
        assert_eq!(interval("10/s"), Duration::from_millis(100));
        assert_eq!(interval("90/m"), Duration::from_micros(666_667));
        assert_eq!(interval("1/h"), Duration::from_secs(3600));
        assert_eq!(interval("1000000/s"), Duration::from_micros(1));
        assert_eq!(parse_frequency("off"), Ok(None));
        for bad in [
            "",
            "10",
            "10/",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "10/d",
            "10/sec",
            "1000001/s",
            "OFF",
            "٣/s",
        ] {
            assert!(parse_frequency(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_second_of_a_slow_rate_is_still_one() {
        let per_second = |text: &str| parse_frequency(text).unwrap().unwrap().per_second();
        assert_eq!(
            (per_second("50/s"), per_second("90/m"), per_second("120/m"), per_second("1/h")),
            (50, 1, 2, 1)
        );
    }

    proptest! {
        #[test]
        fn a_rate_survives_being_written_and_is_never_exceeded(count in 1u32..1_000_000, unit in 0usize..3) {
            let (name, seconds) = FREQUENCY_UNITS[unit];
            let rate = parse_frequency(&format!("{count}/{name}")).unwrap().unwrap();
            prop_assert!(rate.interval() * count >= Duration::from_secs(seconds));
            let back = parse_frequency(&Frequency::text(rate.interval())).unwrap().unwrap();
            prop_assert_eq!(back.interval(), rate.interval());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}|[0-9]{0,20}[a-zA-Zµ/ .]{0,8}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_frequency(&text));
        }
    }
}
