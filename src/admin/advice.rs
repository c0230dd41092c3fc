//! What is allowed in a configuration and costs more than it need.

use crate::channel::segments::Segments;
use crate::delivery::ChannelId;
use crate::template::Templates;

/// Characters of a usual text with a code, and of a subscriber's name beside it.
const USUAL: usize = 100;

/// What a template of `sms` makes of every text: warnings, each fit to stand on a line of its own.
pub fn about_templates(templates: &Templates) -> Vec<String> {
    let own = Segments::of(&templates.own_words(&ChannelId::sms()));
    if let Some(foreign) = own.foreign {
        return vec![format!(
            "templates.sms: `{}` is not in the GSM-7 alphabet: every text is sent as UCS-2, 70 characters a segment \
             in place of 160",
            foreign.escape_debug()
        )];
    }
    let left = 160_usize.saturating_sub(own.units);
    if left >= USUAL {
        return Vec::new();
    }
    vec![format!(
        "templates.sms: its own words take {} of the 160 characters of one segment: with a name and a usual text \
         (about {USUAL}) most are sent as two",
        own.units
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(template: &str) -> Vec<String> {
        let mut templates = Templates::default();
        templates.set(ChannelId::sms(), Templates::parse(&ChannelId::sms(), template).unwrap());
        about_templates(&templates)
    }

    #[test]
    fn templates_that_cost_a_segment_are_told() {
        assert!(about_templates(&Templates::default()).is_empty());
        assert!(about("{code} for {service}\n{body}").is_empty());
        assert!(about("🔑 {body}")[0].contains("`🔑` is not in the GSM-7 alphabet"));
        assert!(about("{name} – {body}")[0].contains("UCS-2"));
        assert!(about(&format!("{}{{body}}", "x".repeat(61)))[0].contains("take 61 of the 160"));
        assert!(about(&format!("{}{{body}}", "x".repeat(60))).is_empty());
        // A bracket takes two.
        assert!(about(&format!("{}{{body}}", "[]".repeat(16)))[0].contains("take 64 of"));
    }
}
