//! The reference for rates: the generic cell rate algorithm, written down once more and plainly.

use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::queue::contract::Rate;

/// When everything handed out so far is paid for, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gcra(i128);

impl Gcra {
    /// How many `rate` allows now.
    pub(crate) fn room(self, rate: Option<Rate>, now: Timestamp) -> usize {
        let Some(rate) = rate else { return usize::MAX };
        let mut after = self.paid_until(rate, now);
        let mut room = 0;
        // One more is allowed while what is owed for those before it is less than a burst.
        while room < rate.burst as usize
            && after - micros(now) <= (i128::from(rate.burst) - 1) * interval(rate)
        {
            after = after.max(micros(now)) + interval(rate);
            room += 1;
        }
        room
    }

    /// Pays for `count` hand-outs.
    pub(crate) fn spend(&mut self, rate: Option<Rate>, now: Timestamp, count: usize) {
        if let Some(rate) = rate.filter(|_| count > 0) {
            let count = i128::try_from(count).expect("a small number");
            self.0 = self.paid_until(rate, now).max(micros(now)) + count * interval(rate);
        }
    }

    /// Never further ahead than a burst, whatever rate ran up the debt.
    fn paid_until(self, rate: Rate, now: Timestamp) -> i128 {
        self.0.min(micros(now) + i128::from(rate.burst) * interval(rate))
    }
}

fn micros(at: Timestamp) -> i128 {
    i128::from(at.as_millis()) * 1_000
}

fn interval(rate: Rate) -> i128 {
    i128::try_from(rate.interval.as_micros()).expect("a duration in microseconds fits")
}
