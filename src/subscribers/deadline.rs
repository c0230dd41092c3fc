//! When nothing is sent any more, as a subscriber has it.

use std::time::Duration;

use crate::code::Recognised;

/// A subscriber's deadline, counted from acceptance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// That of `[message]`.
    #[default]
    Default,
    /// Its own.
    Fixed(Duration),
    /// `"auto"`: that of `[message]`, or as long as the text says its code lives, whichever is shorter.
    Auto,
}

/// A life that is read from a text never shortens a deadline below this: it may be read wrong, and a text that
/// says "valid for 1 second" must not keep itself from being delivered.
pub const SHORTEST_AUTO: Duration = Duration::from_secs(30);

impl Deadline {
    /// The subscriber's own deadline, where it has one.
    pub fn fixed(self) -> Option<Duration> {
        match self {
            Self::Fixed(deadline) => Some(deadline),
            Self::Default | Self::Auto => None,
        }
    }

    /// The deadline of a text in which `found` was recognised, where `default` is that of `[message]`.
    pub fn of(self, found: &Recognised, default: Duration) -> Duration {
        match (self, found.expires_in) {
            (Self::Fixed(deadline), _) => deadline,
            (Self::Auto, Some(life)) if found.code.is_some() => life.max(SHORTEST_AUTO).min(default),
            (Self::Default | Self::Auto, _) => default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Recogniser;

    #[test]
    fn what_a_text_says_shortens_a_deadline_and_never_lengthens_it() {
        let recogniser = Recogniser::new();
        let seconds = Duration::from_secs;
        let of =
            |deadline: Deadline, text: &str| deadline.of(&recogniser.recognise(text, None), seconds(600));
        let code = |life: &str| format!("Your code is 481902. It expires in {life}.");
        assert_eq!(of(Deadline::Auto, &code("2 minutes")), seconds(120));
        assert_eq!(of(Deadline::Auto, &code("30 minutes")), seconds(600));
        assert_eq!(of(Deadline::Auto, &code("1 second")), SHORTEST_AUTO);
        assert_eq!(of(Deadline::Auto, "Your code is 481902"), seconds(600));
        assert_eq!(of(Deadline::Auto, "Our offer expires in 2 minutes"), seconds(600), "that is no code");
        assert_eq!(of(Deadline::Default, &code("2 minutes")), seconds(600));
        assert_eq!(of(Deadline::Fixed(seconds(900)), &code("2 minutes")), seconds(900));
        let found = recogniser.recognise(&code("1 minute"), None);
        assert_eq!(Deadline::Auto.of(&found, seconds(10)), seconds(10), "the shortest is no lengthening");
    }
}
