//! The scripts, and what every call of one begins with.

use redis::{Script, ScriptInvocation};

use super::reply::millis;
use crate::clock::Clock;
use crate::queue::contract::{BUSY_DELAY, Lane, MAX_HAND_OUTS, QueueSettings, SUSPECT_HAND_OUTS};

/// What every key of a shard begins with: the version of what is stored, and the shard's number as the
/// tag that keeps all its keys on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    pub(super) fn of_shard(number: usize) -> Self {
        Self(format!("sq1:{{{number}}}:"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// The stream of a lane.
    pub(super) fn stream_of(&self, lane: &Lane) -> String {
        match lane.as_str() {
            "in" => self.key("in"),
            channel => self.key(&format!("rdy:{channel}")),
        }
    }
}

const GROUND: &str = include_str!("../scripts/ground.lua");
const ENDS: &str = include_str!("../scripts/ends.lua");
const GATES: &str = include_str!("../scripts/gates.lua");

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {
        /// One script per transition; each file says what it takes and answers.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)+
        }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self { $($name: assemble(include_str!(concat!("../scripts/", stringify!($name), ".lua"))),)+ }
            }

            #[cfg(test)]
            fn bodies() -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), include_str!(concat!("../scripts/", stringify!($name), ".lua")))),+]
            }
        }
    };
}

scripts!(
    accept,
    audit_books,
    audit_places,
    audit_records,
    claim,
    expand,
    hold,
    housekeep,
    known,
    letters,
    list,
    ping,
    purge,
    release,
    repair_books,
    repair_places,
    repair_records,
    renew,
    requeue,
    retire,
    settle,
    stats,
    status,
    sweep,
);

/// A script is its first line (how it may run), what all of them share, and its own.
fn assemble(body: &str) -> Script {
    let (shebang, own) = body.split_once('\n').unwrap_or((body, ""));
    let (read_only, busy_delay) = (shebang.contains("no-writes"), BUSY_DELAY.as_millis());
    let constants = format!(
        "local READ_ONLY, MAX_HAND_OUTS, SUSPECT_HAND_OUTS, BUSY_DELAY = {read_only}, {MAX_HAND_OUTS}, {SUSPECT_HAND_OUTS}, {busy_delay}"
    );
    Script::new(&format!("{shebang}\n{constants}\n{GROUND}\n{ENDS}\n{GATES}\n{own}"))
}

/// Begins a call: the keys and the arguments that all scripts share.
///
/// The second key is never there. Where slots move (a cluster), a node takes no script whose keys it does not have
/// all: while ours is on its way, no script runs that would find some of its keys gone, or half of its work done.
pub(super) fn begin<'a>(
    script: &'a Script,
    prefix: &Prefix,
    clock: &Clock,
    settings: &QueueSettings,
) -> ScriptInvocation<'a> {
    let mut call = script.key(prefix.key("stat"));
    call.key(prefix.key("none"));
    match clock.manual_now() {
        Some(now) => call.arg(now.as_millis()),
        None => call.arg(""),
    };
    call.arg(millis(settings.lease)).arg(millis(settings.retention)).arg(settings.dead_letter_cap);
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_how_it_may_run_what_it_takes_and_what_it_answers() {
        for (name, body) in Scripts::bodies() {
            assert!(body.starts_with("#!lua"), "{name}");
            assert!(body.contains("\n-- KEYS[1]") && body.contains("\n-- Result:"), "{name}");
        }
    }

    #[test]
    fn the_keys_of_a_shard_share_its_tag() {
        let prefix = Prefix::of_shard(3);
        assert_eq!(prefix.key("stat"), "sq1:{3}:stat");
        assert_eq!(prefix.stream_of(&Lane::inbound()), "sq1:{3}:in");
        assert_eq!(prefix.stream_of(&Lane::from_stored("sms")), "sq1:{3}:rdy:sms");
    }

    #[test]
    fn what_drains_runs_without_memory_and_what_fills_does_not() {
        for (name, body) in Scripts::bodies() {
            let flags = body.lines().next().unwrap();
            let expected = match name {
                "accept" | "requeue" => "#!lua",
                "audit_books" | "audit_places" | "audit_records" | "letters" | "list" | "stats"
                | "status" => "#!lua flags=no-writes",
                _ => "#!lua flags=allow-oom",
            };
            assert_eq!(flags, expected, "{name}");
        }
    }
}
