//! The way back: a text as a TOML string.

/// `text` as a basic string of TOML that [`super::read`] reads back as `text`: quotes and control
/// characters are escaped, and so is `${`.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::read;
    use super::*;

    proptest! {
        #[test]
        fn any_text_survives_being_written_and_read(text in "(?s).{0,40}|[\\$\\{\\}\"\\\\a]{0,12}") {
            let document = format!("a = {}", quoted(&text));
            let back = read(&document, "f", Path::new(""), &|_| None, |root| root.text("a"));
            let back = back.map(|back| back.as_str().to_owned());
            prop_assert_eq!(back, Ok(text));
        }
    }
}
