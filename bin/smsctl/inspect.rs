//! `smsctl inspect`: what is recognised in one text, or in a stream of them.

use std::io::{BufRead, IsTerminal, stdin, stdout};

use serde::Deserialize;
use sms_broadcaster::admin::{Style, json, text};
use sms_broadcaster::code::Recogniser;
use sms_broadcaster::config::process_environment;

use crate::answer::{Failure, complain, show, show_json};
use crate::flags::InspectFlags;

pub(crate) fn run(flags: InspectFlags) -> Result<(), Failure> {
    let recogniser = Recogniser::new();
    if flags.stdin {
        return stream(&recogniser);
    }
    let found = recogniser.recognise(&flags.body.unwrap_or_default(), flags.from.as_deref());
    if flags.json {
        show_json(&json::recognised(&found))
    } else {
        let style = Style::of(stdout().is_terminal(), &process_environment);
        show(&text::recognised(&found, style))
    }
}

/// One text of a stream. Whatever else stands in the object is the business of whoever wrote it.
#[derive(Deserialize)]
struct Line {
    text: String,
    #[serde(default)]
    from: serde_json::Value,
}

/// Answers every line, one that cannot be read too, so that answers and lines go together.
fn stream(recogniser: &Recogniser) -> Result<(), Failure> {
    let mut unreadable = 0_u64;
    for (number, line) in (1_u64..).zip(stdin().lock().split(b'\n')) {
        let line = line
            .map_err(|error| Failure::failed(format_args!("the input cannot be read: {}", error.kind())))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(line) => show_json(&json::recognised(&recogniser.recognise(&line.text, line.from.as_str())))?,
            Err(_) => {
                unreadable += 1;
                let why = "not a JSON object with a `text`";
                complain("error", format_args!("line {number}: {why}"));
                show_json(&json::not_inspected(why))?;
            }
        }
    }
    match unreadable {
        0 => Ok(()),
        1 => Err(Failure::failed("1 line could not be read")),
        count => Err(Failure::failed(format_args!("{count} lines could not be read"))),
    }
}
