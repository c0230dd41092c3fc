//! Many spans as one request of OTLP, in its JSON form.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: identities in hexadecimal,
//! 64-bit numbers as strings, enumerations as numbers, names in lowerCamelCase.

use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::span::{Attribute, Span};

/// Who made the spans.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The program.
    pub service: &'static str,
    /// This process, among others of its kind.
    pub instance: String,
}

/// The body of a request with `spans`.
pub(super) fn encode(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let of_process = [
        ("service.namespace", Attribute::from("sms-broadcaster")),
        ("service.name", Attribute::from(resource.service)),
        ("service.version", Attribute::from(env!("CARGO_PKG_VERSION"))),
        ("service.instance.id", Attribute::from(resource.instance.clone())),
    ];
    let scope = Scope { name: env!("CARGO_CRATE_NAME"), version: env!("CARGO_PKG_VERSION") };
    let spans = spans.iter().map(WireSpan::from).collect();
    let request = Request {
        resource_spans: [ResourceSpans {
            resource: WireResource { attributes: of_process.iter().map(KeyValue::from).collect() },
            scope_spans: [ScopeSpans { scope, spans }],
        }],
    };
    serde_json::to_vec(&request).expect("strings and numbers always serialise")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'s> {
    resource_spans: [ResourceSpans<'s>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'s> {
    resource: WireResource<'s>,
    scope_spans: [ScopeSpans<'s>; 1],
}

#[derive(Serialize)]
struct WireResource<'s> {
    attributes: Vec<KeyValue<'s>>,
}

#[derive(Serialize)]
struct ScopeSpans<'s> {
    scope: Scope,
    spans: Vec<WireSpan<'s>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireSpan<'s> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'s str,
    kind: u8,
    #[serde(serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "as_text")]
    end_time_unix_nano: u64,
    attributes: Vec<KeyValue<'s>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    status: Status,
}

impl<'s> From<&'s Span> for WireSpan<'s> {
    fn from(span: &'s Span) -> Self {
        let link = |context: crate::trace::TraceContext| Link {
            trace_id: context.trace_id.to_string(),
            span_id: context.span_id.to_string(),
        };
        Self {
            trace_id: span.context.trace_id.to_string(),
            span_id: span.context.span_id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            name: &span.name,
            kind: span.kind as u8,
            start_time_unix_nano: span.start_nanos,
            end_time_unix_nano: span.end_nanos,
            attributes: span.attributes.iter().map(KeyValue::from).collect(),
            links: span.link.map(link).into_iter().collect(),
            status: Status { code: if span.failed { 2 } else { 0 } },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: String,
    span_id: String,
}

/// 0: nothing is said; 2: an error.
#[derive(Serialize)]
struct Status {
    code: u8,
}

#[derive(Serialize)]
struct KeyValue<'s> {
    key: &'s str,
    value: Value<'s>,
}

impl<'s> From<&'s (&'static str, Attribute)> for KeyValue<'s> {
    fn from((key, attribute): &'s (&'static str, Attribute)) -> Self {
        let value = match attribute {
            Attribute::Text(text) => Value::Text(text),
            Attribute::Number(number) => Value::Number(*number),
        };
        Self { key, value }
    }
}

#[derive(Serialize)]
enum Value<'s> {
    #[serde(rename = "stringValue")]
    Text(&'s str),
    #[serde(rename = "intValue", serialize_with = "as_text")]
    Number(i64),
}

fn as_text<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::span::Kind;
    use super::*;
    use crate::trace::TraceContext;

    #[test]
    fn a_span_is_written_as_the_specification_of_otlp_says() {
        let context = |text| TraceContext::parse(text).unwrap();
        let created = context("00-0af7651916cd43dd8448eb211c80319c-00000000000000a1-01");
        let span = Span {
            context: context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            parent: Some(created.span_id),
            link: Some(created),
            kind: Kind::Consumer,
            name: "deliver sms".into(),
            start_nanos: 1_544_712_660_000_000_000,
            end_nanos: 1_544_712_661_000_000_001,
            attributes: vec![("error.type", "timeout".into()), ("sms_broadcaster.attempt", 2u32.into())],
            failed: true,
        };
        let resource = Resource { service: "sms-worker", instance: "1f".to_owned() };
        let written: Value = serde_json::from_slice(&encode(&resource, &[span])).unwrap();
        let spans = &written["resourceSpans"][0]["scopeSpans"][0];
        assert_eq!(spans["scope"]["name"], "sms_broadcaster");
        assert_eq!(
            spans["spans"][0],
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "spanId": "b7ad6b7169203331",
                "parentSpanId": "00000000000000a1",
                "name": "deliver sms",
                "kind": 5,
                "startTimeUnixNano": "1544712660000000000",
                "endTimeUnixNano": "1544712661000000001",
                "attributes": [
                    {"key": "error.type", "value": {"stringValue": "timeout"}},
                    {"key": "sms_broadcaster.attempt", "value": {"intValue": "2"}},
                ],
                "links": [{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "00000000000000a1"}],
                "status": {"code": 2},
            })
        );
        let named = &written["resourceSpans"][0]["resource"]["attributes"];
        assert!(
            named
                .as_array()
                .unwrap()
                .contains(&json!({"key": "service.name", "value": {"stringValue": "sms-worker"}}))
        );
    }
}
