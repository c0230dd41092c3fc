//! Colours, where they can be seen and are wanted.

use crate::document::Environment;

/// What a piece of text is meant to say by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// Nothing.
    Plain,
    /// A heading.
    Heading,
    /// Of less importance.
    Faint,
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Wrong.
    Bad,
}

impl Paint {
    /// Parameters of the terminal's SGR sequence (ECMA-48, 8.3.117).
    const fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Heading => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        }
    }
}

/// What the reader's screen can do, and what the reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    coloured: bool,
    redraws: bool,
}

impl Style {
    /// Text as it is.
    pub const PLAIN: Self = Self { coloured: false, redraws: false };

    /// Colours on a `terminal`, unless `NO_COLOR` has a value (<https://no-color.org>) or `TERM` is `dumb`.
    pub fn of(terminal: bool, env: &Environment<'_>) -> Self {
        let unwanted = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        let unable = env("TERM").is_some_and(|terminal| terminal == "dumb");
        let redraws = terminal && !unable;
        Self { coloured: redraws && !unwanted, redraws }
    }

    /// Whether a page can be put in place of the last one.
    pub fn redraws(self) -> bool {
        self.redraws
    }

    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.coloured || paint == Paint::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", paint.sgr())
    }
}

#[cfg(test)]
pub(super) const COLOURED: Style = Style { coloured: true, redraws: true };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_colours_only_on_a_terminal_that_has_them_and_for_who_wants_them() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        let none = |_: &str| None;
        assert_eq!(Style::of(true, &none), COLOURED);
        assert_eq!(Style::of(true, &with("NO_COLOR", "")), COLOURED);
        assert_eq!(Style::of(false, &none), Style::PLAIN);
        assert_eq!(Style::of(true, &with("NO_COLOR", "1")), Style { redraws: true, ..Style::PLAIN });
        assert_eq!(Style::of(true, &with("TERM", "dumb")), Style::PLAIN);
    }

    #[test]
    fn painted_text_ends_its_paint() {
        assert_eq!(COLOURED.paint(Paint::Bad, "dead"), "\u{1b}[31mdead\u{1b}[0m");
        assert_eq!(COLOURED.paint(Paint::Bad, ""), "");
        assert_eq!(Style::PLAIN.paint(Paint::Bad, "dead"), "dead");
    }
}
