//! The two files, and what to do next.

use std::path::Path;

use super::answers::Complete;
use super::webhook::Webhook;
use crate::channel::sms::SmsSender;
use crate::document::quoted;

/// The variable that holds the account's auth token.
const AUTH_TOKEN: &str = "TWILIO_AUTH_TOKEN";

/// The variable that holds the first Slack webhook; `_2` and so on follow.
const SLACK_WEBHOOK: &str = "MFA_SLACK_WEBHOOK";

/// The variable that holds the public address when it has a password.
const PUBLIC_URL: &str = "MFA_PUBLIC_URL";

/// Twilio's connection overrides: five tries, on every kind of failure.
const OVERRIDES: &str = "#rc=5&rp=all";

/// Makes the file that the configuration's hint names.
const KEYGEN: &str = "`smsctl keygen > queue.key`";

/// A variable to set, and what it is for.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) meaning: String,
}

impl Complete {
    /// The public address as it may be written down: without a slash at its end, or as a reference.
    fn public_url_written(&self) -> String {
        if self.public_url.has_user() {
            return format!("${{{PUBLIC_URL}}}");
        }
        self.public_url.as_written()
    }

    /// The text of `sms-broadcaster.toml`.
    pub(super) fn configuration(&self) -> String {
        let public_url = self.public_url_written();
        // A reference must stay one; an address must not become one.
        let public_url =
            if self.public_url.has_user() { format!("\"{public_url}\"") } else { quoted(&public_url) };
        let sender = match &self.sender {
            SmsSender::From(number) => format!("from = {}", quoted(number.as_str())),
            SmsSender::Service(sid) => format!("messaging_service_sid = {}", quoted(sid)),
        };
        format!(
            "# Made by `sms-broadcaster init`. Every other key has its default;\n\
             # deploy/sms-broadcaster.example.toml shows them all.\n\
             # ${{NAME}} takes an environment variable, ${{file:/run/secrets/x}} the content of a file.\n\
             \n\
             subscribers = \"subscribers.toml\"\n\
             \n\
             [ingress]\n\
             public_url = {public_url}  # what Twilio calls; signatures are checked against it\n\
             \n\
             [twilio]\n\
             account_sid = {}\n\
             auth_tokens = [\"${{{AUTH_TOKEN}}}\"]\n\
             {sender}\n\
             \n\
             # Seals texts and recipients in the store; {KEYGEN} makes the file, for the service's user alone.\n\
             # [queue]\n\
             # encryption_keys = [\"${{file:queue.key}}\"]\n",
            quoted(self.account_sid.as_str()),
        )
    }

    /// The text of `subscribers.toml`: everything goes to everybody until somebody says otherwise.
    pub(super) fn subscribers(&self) -> String {
        let sms: Vec<String> = self.sms.iter().map(|phone| quoted(phone.as_str())).collect();
        let slack: Vec<String> =
            self.slack_references().iter().map(|name| format!("\"${{{name}}}\"")).collect();
        let mut recipients = String::new();
        for (channel, list) in [("sms", sms), ("slack", slack)] {
            if !list.is_empty() {
                recipients.push_str(&format!("{channel} = [{}]\n", list.join(", ")));
            }
        }
        format!(
            "# Made by `sms-broadcaster init`. The first subscriber whose conditions all hold takes a message;\n\
             # [fallback] takes the rest. This file is re-read when it changes.\n\
             \n\
             # [[subscriber]]\n\
             # name = \"GitHub\"\n\
             # from = [\"+15556667777\"]    # exact sender; \"+1555*\" is every sender that starts so\n\
             # sms = [\"+14443332222\"]\n\
             \n\
             [fallback]\n\
             name = {}\n\
             {recipients}",
            quoted(&self.name),
        )
    }

    /// The variables that the files refer to.
    pub(super) fn variables(&self) -> Vec<Variable> {
        let named =
            |name: &str, meaning: &str| Variable { name: name.to_owned(), meaning: meaning.to_owned() };
        let mut variables = vec![named(AUTH_TOKEN, "auth token of the Twilio account")];
        if self.public_url.has_user() {
            variables.push(named(PUBLIC_URL, "the public address, with its user and password"));
        }
        for (name, webhook) in self.slack_references().into_iter().zip(&self.slack) {
            match webhook {
                Webhook::Url(url) => {
                    variables.push(Variable { name, meaning: format!("Slack webhook at {}", url.masked()) });
                }
                Webhook::Reference(_) if name.starts_with("file:") => {}
                Webhook::Reference(_) => variables.push(named(&name, "Slack webhook")),
            }
        }
        variables
    }

    /// What to do with the files in `config`'s folder.
    pub(super) fn next_steps(&self, config: &Path) -> String {
        let variables = self.variables();
        let width = variables.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
        let mut text = "\nSet these variables for every program; the files only refer to them:\n".to_owned();
        for Variable { name, meaning } in &variables {
            text.push_str(&format!("  {name:width$}  {meaning}\n"));
        }
        let config = shell_word(&config.display().to_string());
        text.push_str(&format!(
            "\nTo seal what is stored, run {KEYGEN} there and take out the # of [queue].\n\
             \nThen check, and run:\n  smsctl check --config {config}\n  sms-broadcaster run --config {config}\n\
             \nIn Twilio's console, where a message to your number comes in, set this webhook (HTTP POST):\n  \
             {}/twilio/sms{OVERRIDES}\n",
            self.public_url_written()
        ));
        text
    }

    /// What the files refer to each webhook by: as it was given, or by the next name that is free.
    fn slack_references(&self) -> Vec<String> {
        let is_given = |name: &String| {
            self.slack.iter().any(|webhook| matches!(webhook, Webhook::Reference(given) if given == name))
        };
        let numbered = (2..).map(|number| format!("{SLACK_WEBHOOK}_{number}"));
        let mut free =
            std::iter::once(SLACK_WEBHOOK.to_owned()).chain(numbered).filter(|name| !is_given(name));
        let name = |webhook: &Webhook| match webhook {
            Webhook::Reference(given) => Some(given.clone()),
            Webhook::Url(_) => free.next(),
        };
        self.slack.iter().filter_map(name).collect()
    }
}

/// `text` as one word of a POSIX shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
