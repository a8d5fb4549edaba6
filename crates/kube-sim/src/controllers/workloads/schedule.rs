//! The schedules of CronJobs that the stand-in understands: numbers, steps and stars for minute and hour, in UTC.

use jiff::{Timestamp, ToSpan, tz::TimeZone};

/// A field: every value, every n-th one, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Every(i8),
    At(i8),
}

impl Field {
    fn parse(text: &str, limit: i8) -> Option<Self> {
        let number = |text: &str| text.parse::<i8>().ok().filter(|number| (0..limit).contains(number));
        match text.strip_prefix('*') {
            Some("") => Some(Self::Every(1)),
            Some(step) => number(step.strip_prefix('/')?).filter(|step| *step > 0).map(Self::Every),
            None => number(text).map(Self::At),
        }
    }

    const fn has(self, value: i8) -> bool {
        match self {
            Self::Every(step) => value % step == 0,
            Self::At(at) => value == at,
        }
    }
}

/// A schedule: some minutes of some hours of every day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    minute: Field,
    hour: Field,
}

impl Schedule {
    /// # Errors
    /// When the text asks for more than is understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let parsed = match fields.as_slice() {
            [minute, hour, "*", "*", "*"] => Field::parse(minute, 60).zip(Field::parse(hour, 24)),
            _ => None,
        };
        let (minute, hour) = parsed.ok_or_else(|| {
            format!("unparseable schedule {text:?}: the stand-in knows stars, steps and numbers of minutes and hours")
        })?;
        Ok(Self { minute, hour })
    }

    /// The last time in `(after, until]`.
    pub(super) fn last(self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let minute = until.as_second().div_euclid(60);
        self.search((0..=1440).map(|back| minute - back)).filter(|time| *time > after)
    }

    /// The first time after `after`.
    pub(super) fn next(self, after: Timestamp) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60);
        self.search((1..=1441).map(|ahead| minute + ahead))
    }

    fn search(self, mut minutes: impl Iterator<Item = i64>) -> Option<Timestamp> {
        minutes.find_map(|minute| {
            let time = Timestamp::UNIX_EPOCH.checked_add(minute.minutes()).ok()?;
            let civil = time.to_zoned(TimeZone::UTC);
            (self.minute.has(civil.minute()) && self.hour.has(civil.hour())).then_some(time)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    #[test]
    fn times_come_one_after_the_other() {
        let five = Schedule::parse("*/5 * * * *").unwrap();
        assert_eq!(five.next(time("10:00:00")), Some(time("10:05:00")));
        assert_eq!(five.next(time("10:04:59")), Some(time("10:05:00")));
        assert_eq!(five.last(time("10:00:00"), time("10:12:30")), Some(time("10:10:00")));
        assert_eq!(five.last(time("10:10:00"), time("10:12:30")), None);
        let daily = Schedule::parse("30 2 * * *").unwrap();
        assert_eq!(daily.last(time("00:00:00"), time("23:00:00")), Some(time("02:30:00")));
        assert_eq!(daily.next(time("02:30:00")).unwrap().to_string(), "2026-01-02T02:30:00Z");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "* * * *", "*/0 * * * *", "60 * * * *", "1-5 * * * *", "* * 1 * *", "@yearly", "*5 * * * *"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
