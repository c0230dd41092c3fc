//! The audit: what must not be, looked for in everything there is.

use rusqlite::types::ValueRef;

use super::books::Books;
use super::gate::OF_THE_LANE;
use super::piece::text;
use super::reader::Snapshot;
use super::schema;
use crate::delivery::DeadCause;
use crate::message::MessageId;

/// The most findings of one kind that are told; a store that is wrong in a million places needs no
/// million lines.
const TOLD: usize = 50;

/// What is said of a table or an index.
const MISSING: &str = "is missing; the next change makes it anew";

/// A kind of finding: what to say of each row, and the rows. A row's columns are joined by `/` and put
/// in front of the words.
const CHECKS: &[(&str, &str)] = &[
    // Places.
    (
        "is in no place that is known",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message WHERE w.place NOT IN \
         ('ready', 'leased', 'delayed', 'parked', 'delivered', 'dead', 'expired', 'expanded')",
    ),
    (
        "is ready and has no turn, or the reverse",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message \
         WHERE (w.place IN ('ready', 'leased')) <> (w.turn IS NOT NULL AND w.ready_at IS NOT NULL)",
    ),
    (
        "is leased and has no owner, or the reverse",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message WHERE (w.place = 'leased') \
         <> (w.owner IS NOT NULL AND w.lease_no IS NOT NULL AND w.lease_until IS NOT NULL)",
    ),
    (
        "is delayed and has no time, or the reverse",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message \
         WHERE (w.place = 'delayed') <> (w.due IS NOT NULL)",
    ),
    (
        "is parked for no destination",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message \
         WHERE w.place = 'parked' AND w.destination IS NULL",
    ),
    (
        "is expanded and no routing",
        "SELECT m.id, w.idx FROM work w JOIN message m ON m.seq = w.message \
         WHERE w.place = 'expanded' AND w.idx <> 0",
    ),
    (
        "is a delivery of a message that was not routed",
        "SELECT m.id, w.idx FROM work w JOIN message m ON m.seq = w.message WHERE w.idx > 0 AND NOT EXISTS \
         (SELECT 1 FROM work r WHERE r.message = w.message AND r.idx = 0 AND r.place = 'expanded')",
    ),
    (
        "is in a lane that is not listed",
        "SELECT m.id, w.idx FROM work w LEFT JOIN message m ON m.seq = w.message \
         WHERE NOT EXISTS (SELECT 1 FROM lane l WHERE l.name = w.lane)",
    ),
    (
        "belongs to no message",
        "SELECT w.message, w.idx FROM work w WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.seq = w.message)",
    ),
    // Messages.
    (
        "is a message without its routing",
        "SELECT m.id FROM message m WHERE NOT EXISTS (SELECT 1 FROM work w WHERE w.message = m.seq AND w.idx = 0)",
    ),
    (
        "counts its pending work wrongly",
        "SELECT m.id FROM message m WHERE m.pending <> (SELECT COUNT(*) FROM work w WHERE w.message = m.seq \
         AND w.place IN ('ready', 'leased', 'delayed', 'parked'))",
    ),
    (
        "counts its letters wrongly",
        "SELECT m.id FROM message m WHERE m.letters <> \
         (SELECT COUNT(*) FROM work w WHERE w.message = m.seq AND w.died_at IS NOT NULL)",
    ),
    (
        "has ended and no expiry, or the reverse",
        "SELECT m.id FROM message m WHERE (m.pending = 0) <> (m.expires_at IS NOT NULL)",
    ),
    (
        "keeps a text that nothing needs, or lacks one that is needed",
        // A letter can be shown without.
        "SELECT m.id FROM message m WHERE (m.pending > 0 AND m.payload IS NULL) \
         OR (m.pending = 0 AND m.letters = 0 AND m.payload IS NOT NULL)",
    ),
    // Recipients and letters.
    (
        "keeps a recipient that nothing needs, or lacks one that is needed",
        "SELECT m.id, w.idx FROM work w JOIN message m ON m.seq = w.message WHERE w.idx > 0 AND \
         CASE WHEN w.place IN ('ready', 'leased', 'delayed', 'parked') THEN w.recipient IS NULL \
         ELSE w.died_at IS NULL AND w.recipient IS NOT NULL END",
    ),
    (
        "keeps a history that nothing needs",
        "SELECT m.id, w.idx FROM work w JOIN message m ON m.seq = w.message WHERE w.history IS NOT NULL AND NOT \
         (w.place IN ('ready', 'leased', 'delayed', 'parked') OR w.died_at IS NOT NULL)",
    ),
    (
        "is a letter of work that did not die, or has no cause",
        "SELECT m.id, w.idx FROM work w JOIN message m ON m.seq = w.message \
         WHERE (w.died_at IS NOT NULL) <> (w.cause IS NOT NULL) \
         OR (w.died_at IS NOT NULL AND w.place NOT IN ('dead', 'expired')) \
         OR (w.died_at IS NOT NULL AND (w.cause = 'expired') <> (w.place = 'expired'))",
    ),
    // Gates.
    (
        "has parked work that nothing wakes",
        "SELECT DISTINCT w.lane, w.destination FROM work w WHERE w.place = 'parked' AND NOT EXISTS (SELECT 1 \
         FROM gate g WHERE g.lane = w.lane AND g.destination = w.destination AND g.wake_at IS NOT NULL)",
    ),
    (
        "is woken without parked work",
        "SELECT g.lane, g.destination FROM gate g WHERE g.wake_at IS NOT NULL AND NOT EXISTS (SELECT 1 \
         FROM work w WHERE w.place = 'parked' AND w.lane = g.lane AND w.destination = g.destination)",
    ),
];

pub(super) fn audit(snapshot: &Snapshot<'_>) -> rusqlite::Result<Vec<String>> {
    let mut findings = structure(snapshot)?;
    if findings.iter().any(|finding| finding.contains(MISSING)) {
        // The rest cannot be asked.
        return Ok(findings);
    }
    for (words, sql) in CHECKS {
        let mut statement = snapshot.connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut told = 0;
        while let Some(row) = rows.next()? {
            told += 1;
            if told > TOLD {
                findings.push(format!("and more that {words}"));
                break;
            }
            let name: Vec<String> = (0..columns)
                .map(|column| {
                    Ok(match row.get_ref(column)? {
                        ValueRef::Integer(number) => number.to_string(),
                        _ => text(row, column)?.unwrap_or_else(|| "?".to_owned()),
                    })
                })
                .collect::<rusqlite::Result<_>>()?;
            findings.push(format!("{} {words}", name.join("/")));
        }
    }
    unreadable_ids(snapshot, &mut findings)?;
    sums(snapshot, &mut findings)?;
    Ok(findings)
}

/// The file itself: its pages, and the tables and indexes that have to be there.
fn structure(snapshot: &Snapshot<'_>) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut check = snapshot.connection.prepare(&format!("PRAGMA integrity_check({TOLD})"))?;
    for line in check.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            findings.push(format!("the file is damaged: {line}"));
        }
    }
    let present: Vec<String> = snapshot
        .connection
        .prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let known = |name: &String| schema::NAMES.contains(&name.as_str());
    findings.extend(present.iter().filter(|name| !known(name)).map(|name| format!("{name} is not ours")));
    let missing = schema::NAMES.iter().filter(|name| !present.iter().any(|found| found == *name));
    findings.extend(missing.map(|name| format!("{name} {MISSING}")));
    Ok(findings)
}

fn unreadable_ids(snapshot: &Snapshot<'_>, findings: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut statement = snapshot.connection.prepare_cached("SELECT seq, id FROM message")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if text(row, 1)?.is_none_or(|id| MessageId::parse(&id).is_err()) {
            findings.push(format!("message {} has an unreadable id", row.get::<_, i64>(0)?));
        }
    }
    Ok(())
}

/// The books against what there is.
fn sums(snapshot: &Snapshot<'_>, findings: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut books = Books::load(snapshot.connection)?;
    let mut compare = |what: &str, booked: i64, sql: &str| -> rusqlite::Result<()> {
        let found: i64 = snapshot.connection.query_row(sql, [], |row| row.get(0))?;
        if booked != found {
            findings.push(format!("the books say {booked} {what}, there are {found}"));
        }
        Ok(())
    };
    compare(
        "pending deliveries",
        books.pending(),
        "SELECT COUNT(*) FROM work WHERE place IN ('ready', 'leased', 'delayed', 'parked')",
    )?;
    compare("unfinished messages", books.open, "SELECT COUNT(*) FROM message WHERE pending > 0")?;
    for cause in DeadCause::ALL {
        let word = cause.as_str();
        compare(
            &format!("letters of the cause {word}"),
            *books.letters(cause),
            &format!("SELECT COUNT(*) FROM work WHERE cause = '{word}' AND died_at IS NOT NULL"),
        )?;
    }
    let latest: i64 = snapshot.connection.query_row(
        "SELECT MAX(COALESCE(MAX(turn), 0) - ?1, COALESCE(MAX(lease_no), 0) - ?2) FROM work",
        [books.turn, books.lease],
        |row| row.get(0),
    )?;
    if latest > 0 {
        findings.push("a turn or lease number was given that the books do not know".to_owned());
    }
    let lane_woken = snapshot.connection.query_row(
        "SELECT COUNT(*) FROM gate WHERE destination = ?1 AND wake_at IS NOT NULL",
        [OF_THE_LANE],
        |row| row.get::<_, i64>(0),
    )?;
    if lane_woken > 0 {
        findings.push("a lane as a whole is to be woken".to_owned());
    }
    Ok(())
}
