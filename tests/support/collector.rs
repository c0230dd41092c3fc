//! A collector of traces: takes OTLP over real HTTP, keeps what it was sent and answers by a script.

use serde_json::Value;

use super::provider::{Provider, Received, Reply};

/// Names a [`Provider`] that no phone or webhook is asked of: its only destination has no name.
const ONLY: &str = "";

/// A running collector.
pub(crate) struct Collector {
    server: Provider,
}

/// A span, as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The program that made it.
    pub(crate) service: String,
    span: Value,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        let server = Provider::start();
        server.always(ONLY, Reply::status(200).body("{}"));
        Self { server }
    }

    /// Answers the next requests so, one after another, before anything else.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.server.script(ONLY, replies);
    }

    /// Answers so from now on.
    pub(crate) fn always(&self, reply: Reply) {
        self.server.always(ONLY, reply);
    }

    /// The configuration's lines for it.
    pub(crate) fn settings(&self) -> String {
        format!("[telemetry]\notlp_endpoint = \"{}\"\n", self.server.api_base())
    }

    /// The same with a user and a password.
    pub(crate) fn settings_for(&self, user_and_password: &str) -> String {
        self.settings().replace("//", &format!("//{user_and_password}@"))
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.server.requests()
    }

    /// Every span of the requests that were answered well.
    pub(crate) fn spans(&self) -> Vec<Sent> {
        self.requests().iter().filter(|request| request.accepted()).flat_map(spans).collect()
    }

    /// Waits for a request.
    pub(crate) async fn wait_until(&self, what: &str, condition: impl Fn(&[Received]) -> bool) {
        self.server.wait_until(what, condition).await;
    }
}

fn spans(request: &Received) -> Vec<Sent> {
    let body = request.json().expect("a body in JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for resource in list(&body["resourceSpans"]) {
        let named = list(&resource["resource"]["attributes"]);
        let service = named.iter().find(|pair| pair["key"] == "service.name").expect("a service");
        let service = service["value"]["stringValue"].as_str().expect("its name").to_owned();
        for scope in list(&resource["scopeSpans"]) {
            found.extend(
                list(&scope["spans"]).into_iter().map(|span| Sent { service: service.clone(), span }),
            );
        }
    }
    found
}

impl Sent {
    /// A field of the span that is a text.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.span[field].as_str().unwrap_or_default()
    }

    /// Its part: 2 is a server, 4 a producer, 5 a consumer.
    pub(crate) fn kind(&self) -> u64 {
        self.span["kind"].as_u64().expect("a kind")
    }

    /// Whether it says that something went wrong.
    pub(crate) fn failed(&self) -> bool {
        self.span["status"]["code"] == 2
    }

    /// An attribute, whatever its type, as text.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let pairs = self.span["attributes"].as_array()?;
        let value = &pairs.iter().find(|pair| pair["key"] == name)?["value"];
        value["stringValue"].as_str().or_else(|| value["intValue"].as_str())
    }

    /// The spans it is linked to.
    pub(crate) fn links(&self) -> Vec<&str> {
        let links = self.span["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        links.iter().filter_map(|link| link["spanId"].as_str()).collect()
    }
}
