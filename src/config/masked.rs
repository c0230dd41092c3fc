//! The effective configuration as TOML, fit to be shown: what `--check-config` prints.

use std::fmt::{Display, Write};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::settings::{Config, LogFormat, QueueChoice};
use super::urls;
use crate::channel::sms::SmsSender;
use crate::document::{Frequency, duration_text, quoted, size_text};
use crate::queue::contract::Rate;
use crate::queue::redis::RedisAddress;

const SECRET: &str = "***";

impl Config {
    /// The effective configuration as TOML: defaults filled in; secrets are `"***"`, phone numbers
    /// without their middle, URLs without user, password and path.
    pub fn masked(&self) -> String {
        let mut page = Page(String::new());
        page.text("subscribers", &self.subscribers.display());
        self.ingress_masked(&mut page);
        page.table("ops");
        page.text("listen", &self.ops_listen);
        self.twilio_masked(&mut page);
        self.queue_masked(&mut page);
        self.work_masked(&mut page);
        page.table("log");
        page.text("format", if self.log.format == LogFormat::Json { &"json" } else { &"text" });
        page.text("level", &self.log.level.as_str().to_ascii_lowercase());
        page.table("telemetry");
        if let Some(collector) = &self.telemetry.collector {
            page.text("otlp_endpoint", &urls::masked_collector(collector));
        }
        page.bare("sample_ratio", &format_args!("{:?}", self.telemetry.sample_ratio));
        page.0
    }

    fn ingress_masked(&self, page: &mut Page) {
        let ingress = &self.ingress;
        page.table("ingress");
        page.text("listen", &ingress.listen);
        page.text("public_url", &self.twilio.public_url.masked());
        page.text("max_body", &size_text(ingress.max_body as u64));
        page.text("rate_per_ip", &rate_text(ingress.rate_per_ip));
        page.list("trusted_proxies", ingress.trusted_proxies.iter());
        page.bare("loop_guard", &ingress.loop_guard.is_on());
    }

    fn twilio_masked(&self, page: &mut Page) {
        page.table("twilio");
        page.text("account_sid", &self.twilio.account_sid.as_str());
        page.list("auth_tokens", self.twilio.auth_tokens.iter().map(|_| SECRET));
        if self.sms.user != self.sms.account_sid.as_str() {
            page.text("api_key_sid", &SECRET);
            page.text("api_key_secret", &SECRET);
        }
        match &self.sms.sender {
            SmsSender::From(number) => page.text("from", &number.masked()),
            SmsSender::Service(sid) => page.text("messaging_service_sid", sid),
        }
        page.text("api_base", &urls::masked(&self.sms.api_base));
    }

    fn queue_masked(&self, page: &mut Page) {
        page.table("queue");
        match &self.queue {
            QueueChoice::Embedded { path } => {
                page.text("backend", &"embedded");
                page.text("path", &path.display());
            }
            QueueChoice::Redis(redis) => {
                page.text("backend", &"redis");
                match RedisAddress::parse(redis.url.expose_secret()) {
                    Ok(address) => page.text("url", &address),
                    Err(_) => page.text("url", &SECRET),
                }
                if let Some(path) = &redis.tls.ca {
                    page.text("tls_ca_file", &path.display());
                }
                if let Some((certificate, key)) = &redis.tls.own {
                    page.text("tls_cert_file", &certificate.display());
                    page.text("tls_key_file", &key.display());
                }
                page.bare("shards", &redis.shards);
                page.text("durability", &redis.durability.as_str());
            }
        }
        page.list("encryption_keys", self.keys.ids().map(|id| format!("{id}:{SECRET}")));
        if !self.keys.is_empty() {
            page.bare("accept_unsealed", &self.keys.accepts_unsealed());
        }
        if let Some(spool) = &self.spool {
            page.text("spool", &spool.display());
        }
        page.bare("capacity", &self.queue_settings.capacity);
    }

    fn work_masked(&self, page: &mut Page) {
        page.table("message");
        page.duration("deadline", self.worker.deadline);
        page.duration("retention", self.queue_settings.retention);
        page.table("worker");
        page.bare("concurrency", &self.worker.concurrency);
        page.duration("lease", self.worker.lease);
        page.duration("drain", self.worker.drain);
        page.table("retry");
        page.duration("base", self.retry.base);
        // With `{:?}` a whole number keeps its point, as TOML wants it.
        page.bare("factor", &format_args!("{:?}", self.retry.factor));
        page.duration("cap", self.retry.cap);
        page.bare("max_attempts", &self.retry.max_attempts);
        for (channel, plan) in &self.channels {
            page.table(&format!("channel.{channel}"));
            page.duration("timeout", plan.timeout);
            page.limit("rate", "burst", plan.limits.lane);
            page.limit("rate_per_destination", "burst_per_destination", plan.limits.destination);
        }
        page.table("templates");
        for (channel, template) in &self.templates {
            page.text(channel.as_str(), template);
        }
    }
}

fn rate_text(rate: Option<Rate>) -> String {
    rate.map_or("off".to_owned(), |rate| Frequency::text(rate.interval))
}

/// TOML in the making.
struct Page(String);

impl Page {
    fn table(&mut self, name: &str) {
        self.0.push_str(&format!("\n[{name}]\n"));
    }

    /// A key whose value is written as it displays.
    fn bare(&mut self, key: &str, value: &dyn Display) {
        writeln!(self.0, "{key} = {value}").expect("a string takes everything");
    }

    fn text(&mut self, key: &str, value: &dyn Display) {
        self.bare(key, &quoted(&value.to_string()));
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = impl Display>) {
        let values: Vec<String> = values.map(|value| quoted(&value.to_string())).collect();
        self.bare(key, &format_args!("[{}]", values.join(", ")));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &duration_text(value));
    }

    fn limit(&mut self, rate_key: &str, burst_key: &str, rate: Option<Rate>) {
        self.text(rate_key, &rate_text(rate));
        if let Some(rate) = rate {
            self.bare(burst_key, &rate.burst);
        }
    }
}
