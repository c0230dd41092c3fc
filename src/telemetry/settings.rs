//! Where spans go, and how many.

use std::fmt;

use secrecy::SecretString;
use url::Url;

/// What is traced.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Who gets the spans; `None`: nobody, and none are made.
    pub collector: Option<Collector>,
    /// Part of the traces that begin here which is recorded, from 0 to 1. A request that is part of a trace
    /// already is recorded if that trace is.
    pub sample_ratio: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { collector: None, sample_ratio: 1.0 }
    }
}

/// A collector that speaks OTLP over HTTP. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Collector {
    /// Its address without user and password; `/v1/traces` comes after it.
    pub base: Url,
    /// HTTP Basic user and password.
    pub basic: Option<(String, SecretString)>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}
