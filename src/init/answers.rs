//! What has to be known to write the files: from flags first, then from a person.

use std::io::{self, BufRead, Write};

use super::args::InitArgs;
use super::webhook::Webhook;
use crate::channel::sms::SmsSender;
use crate::config::parse_sender_identity;
use crate::message::{AccountSid, Malformed, PhoneNumber};
use crate::source::twilio::PublicUrl;
use crate::subscribers::parse_name;

/// Name of the recipients' list when nobody gives one.
const DEFAULT_NAME: &str = "MFA";

/// What is known so far; every value has passed the parser that will read it from the file.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) public_url: Option<PublicUrl>,
    pub(super) account_sid: Option<AccountSid>,
    pub(super) sender: Option<SmsSender>,
    pub(super) name: Option<String>,
    pub(super) sms: Vec<PhoneNumber>,
    pub(super) slack: Vec<Webhook>,
}

/// Everything that must be known.
pub(super) struct Complete {
    pub(super) public_url: PublicUrl,
    pub(super) account_sid: AccountSid,
    pub(super) sender: SmsSender,
    pub(super) name: String,
    pub(super) sms: Vec<PhoneNumber>,
    pub(super) slack: Vec<Webhook>,
}

impl Answers {
    /// Reads the flags, or says of each faulty one what was expected.
    pub(super) fn from_flags(args: &InitArgs) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut check = |flag: &str, fault: Option<Malformed>| {
            faults.extend(fault.map(|Malformed(expected)| format!("--{flag}: {expected}")));
        };
        let mut answers = Self::default();
        if let Some(text) = &args.public_url {
            check("public-url", set(&mut answers.public_url, PublicUrl::parse(text)));
        }
        if let Some(text) = &args.account_sid {
            check("account-sid", set(&mut answers.account_sid, AccountSid::parse(text)));
        }
        if let Some(text) = &args.from {
            check("from", set(&mut answers.sender, parse_sender_identity(text)));
        }
        if let Some(text) = &args.name {
            check("name", set(&mut answers.name, parse_name(text)));
        }
        for text in &args.sms {
            check("sms", add(&mut answers.sms, PhoneNumber::parse(text)));
        }
        for text in &args.slack {
            check("slack", add(&mut answers.slack, Webhook::parse(text)));
        }
        if faults.is_empty() { Ok(answers) } else { Err(faults) }
    }

    /// The flags that would give what is missing.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.public_url.is_none() {
            missing.push("--public-url URL");
        }
        if self.account_sid.is_none() {
            missing.push("--account-sid SID");
        }
        if self.sender.is_none() {
            missing.push("--from NUMBER");
        }
        if self.sms.is_empty() && self.slack.is_empty() {
            missing.push("--sms PHONE (or --slack URL)");
        }
        missing
    }

    /// Asks for what is missing, each question until its answer is good. The end of the input leaves it
    /// missing.
    pub(super) fn ask(&mut self, input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<()> {
        let mut person = Person { input, output };
        if self.public_url.is_none() {
            let question = "Public address that Twilio will call, such as https://mfa.example.com: ";
            self.public_url = person.answer(question, PublicUrl::parse)?;
        }
        if self.account_sid.is_none() {
            let question = "Twilio account SID (AC...): ";
            self.account_sid = person.answer(question, AccountSid::parse)?;
        }
        if self.sender.is_none() {
            let question = "Number to send from, such as +15005550006, or a messaging service (MG...): ";
            self.sender = person.answer(question, parse_sender_identity)?;
        }
        if self.sms.is_empty() && self.slack.is_empty() {
            self.ask_for_recipients(&mut person)?;
        }
        if self.name.is_none() {
            let question = format!("Name shown in the texts that are passed on [{DEFAULT_NAME}]: ");
            let name =
                |text: &str| if text.is_empty() { Ok(DEFAULT_NAME.to_owned()) } else { parse_name(text) };
            self.name = person.answer(&question, name)?;
        }
        Ok(())
    }

    fn ask_for_recipients(&mut self, person: &mut Person<'_>) -> io::Result<()> {
        while self.sms.is_empty() && self.slack.is_empty() {
            let question = "Phone to pass texts on to, such as +14443332222 (empty: no more): ";
            while let Some(Some(phone)) = person.answer(question, optional(PhoneNumber::parse))? {
                self.sms.push(phone);
            }
            let question =
                "Slack webhook to pass texts on to; only a reference is written (empty: no more): ";
            loop {
                match person.answer(question, optional(Webhook::parse))? {
                    Some(Some(webhook)) => self.slack.push(webhook),
                    Some(None) => break,
                    None => return Ok(()),
                }
            }
            if self.sms.is_empty() && self.slack.is_empty() {
                writeln!(person.output, "  At least one phone or webhook is needed.")?;
            }
        }
        Ok(())
    }

    /// All of it, when nothing is missing.
    pub(super) fn complete(self) -> Option<Complete> {
        Some(Complete {
            public_url: self.public_url?,
            account_sid: self.account_sid?,
            sender: self.sender?,
            name: self.name.unwrap_or(DEFAULT_NAME.to_owned()),
            sms: self.sms,
            slack: self.slack,
        })
    }
}

fn set<T>(slot: &mut Option<T>, parsed: Result<T, Malformed>) -> Option<Malformed> {
    parsed.map(|value| *slot = Some(value)).err()
}

fn add<T: PartialEq>(list: &mut Vec<T>, parsed: Result<T, Malformed>) -> Option<Malformed> {
    parsed
        .map(|value| {
            if !list.contains(&value) {
                list.push(value);
            }
        })
        .err()
}

/// An empty answer is no more answers.
fn optional<T>(
    parse: impl Fn(&str) -> Result<T, Malformed>,
) -> impl Fn(&str) -> Result<Option<T>, Malformed> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Who sits at the terminal.
struct Person<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl Person<'_> {
    /// Asks until the answer is good; `None` at the end of the input.
    fn answer<T>(
        &mut self,
        question: &str,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> io::Result<Option<T>> {
        loop {
            write!(self.output, "{question}")?;
            self.output.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                writeln!(self.output)?;
                return Ok(None);
            }
            match parse(line.trim()) {
                Ok(value) => return Ok(Some(value)),
                Err(Malformed(expected)) => writeln!(self.output, "  {expected}")?,
            }
        }
    }
}
