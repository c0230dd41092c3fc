//! Bar charts as SVG, readable on light and dark pages.

use std::fmt::Write as _;

use crate::report::{Series, figure};

/// One chart: its file, and which figures are its bars.
pub(crate) struct Chart {
    pub(crate) file: &'static str,
    title: &'static str,
    /// Row, name of the figure, label.
    pub(crate) bars: &'static [(&'static str, &'static str, &'static str)],
}

/// Every chart of the page.
pub(crate) const ALL: &[Chart] = &[
    Chart {
        file: "accept.svg",
        title: "Signed webhooks accepted per second (64 connections)",
        bars: &[
            ("accept", "SMS Broadcaster: webhooks", "SMS Broadcaster, Redis"),
            ("embedded", "webhooks", "SMS Broadcaster, embedded*"),
            ("accept", "Express + BullMQ: webhooks", "Express + BullMQ"),
            ("accept", "Express, sends before it answers: webhooks", "Express, nothing stored"),
            ("accept", "bare axum: webhooks", "bare axum, nothing stored"),
        ],
    },
    Chart {
        file: "deliver.svg",
        title: "Deliveries per second from a standing backlog",
        bars: &[
            ("deliver", "SMS Broadcaster: deliveries", "SMS Broadcaster, one worker"),
            ("deliver", "BullMQ: deliveries", "BullMQ at 200, undici"),
            ("deliver", "BullMQ with fetch: deliveries", "BullMQ at 200, fetch"),
        ],
    },
    Chart {
        file: "latency.svg",
        title: "Webhook sent to receiver has it, at 200 messages a second (ms)",
        bars: &[
            ("latency", "Redis: p50", "Redis, p50"),
            ("latency", "Redis: p99", "Redis, p99"),
            ("latency", "embedded: p50", "embedded, p50"),
            ("latency", "embedded: p99", "embedded, p99"),
        ],
    },
    Chart {
        file: "backlog.svg",
        title: "Deliveries per second with so many messages waiting",
        bars: &[
            ("backlog", "1,000 waiting: deliveries", "1,000"),
            ("backlog", "100,000 waiting: deliveries", "100,000"),
            ("backlog", "1,000,000 waiting: deliveries", "1,000,000"),
            ("backlog", "embedded, 1,000 waiting: deliveries", "embedded: 1,000"),
            ("backlog", "embedded, 100,000 waiting: deliveries", "embedded: 100,000"),
            ("backlog", "embedded, 1,000,000 waiting: deliveries", "embedded: 1,000,000"),
        ],
    },
    Chart {
        file: "workers.svg",
        title: "Deliveries per second to a receiver that takes 50 ms a send",
        bars: &[
            ("workers", "1 worker: deliveries", "1 worker"),
            ("workers", "2 workers: deliveries", "2 workers"),
            ("workers", "4 workers: deliveries", "4 workers"),
        ],
    },
];

const WIDTH: f64 = 760.0;
const LABELS: f64 = 230.0;
const FIGURES: f64 = 90.0;
const STEP: f64 = 34.0;
const TOP: f64 = 46.0;

impl Chart {
    /// Draws it: a bar for each median, a line from the lowest to the highest round.
    pub(crate) fn draw(&self, bars: &[(&str, &Series)]) -> String {
        let highest = bars.iter().map(|(_, series)| series.highest()).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABELS - FIGURES) / highest;
        let height = TOP + STEP * bars.len() as f64 + 10.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"14\">\n<title>{title}</title>\n<style>\
             text{{fill:#24292f}}.t{{font-weight:600}}.b{{fill:#8c959f}}.o{{fill:#1a7f64}}.s{{stroke:#24292f;stroke-width:1.5}}\
             @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.b{{fill:#6e7681}}.o{{fill:#2ea583}}.s{{stroke:#e6edf3}}}}\
             </style>\n<text class=\"t\" x=\"0\" y=\"20\">{title}</text>\n",
            title = self.title
        );
        let ours_only = bars.iter().all(|(label, _)| !label.contains("SMS Broadcaster"));
        for (place, (label, series)) in bars.iter().enumerate() {
            let y = TOP + STEP * place as f64;
            let class = if ours_only || label.contains("SMS Broadcaster") { "o" } else { "b" };
            let [length, low, high] =
                [series.median(), series.lowest(), series.highest()].map(|value| value * scale);
            let middle = y + 11.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{base}\" text-anchor=\"end\">{label}</text>\
                 <rect class=\"{class}\" x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"22\" rx=\"2\"/>\
                 <line class=\"s\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
                 <text x=\"{behind:.1}\" y=\"{base}\">{value}</text>",
                x = LABELS - 10.0,
                base = y + 16.0,
                from = LABELS + low,
                to = LABELS + high,
                behind = LABELS + high.max(length) + 8.0,
                value = figure(series.median())
            );
        }
        svg + "</svg>\n"
    }
}
