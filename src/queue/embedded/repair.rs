//! The repair: whatever the audit finds wrong has an answer here. Step by step, so that the service is
//! never held up for longer than one look through a table takes.

use rusqlite::params;

use super::gate::OF_THE_LANE;
use super::piece::{Piece, Place, text};
use super::statements::{self, pieces};
use super::writer::Step;
use crate::delivery::DeadCause;
use crate::message::MessageId;

/// The most that is told of one kind; a store that is wrong in a million places needs no million lines.
const TOLD: usize = 50;

/// What work gets to its deadline whose own is lost, in milliseconds.
const NEW_DEADLINE: i64 = 300_000;

/// One step: puts one kind of thing right and says what it did.
type Repair = fn(&mut Step<'_>) -> rusqlite::Result<Vec<String>>;

/// The steps in order: each relies on what those before it put right.
pub(super) const STEPS: [Repair; 11] =
    [structure, unreadable_ids, orphans, routings, places, letters, sums, hopeless, needless, gates, books];

/// What was done to each of `names`; more than a few are counted.
fn told(names: Vec<String>, words: &str) -> Vec<String> {
    let rest = names.len().saturating_sub(TOLD);
    let mut lines: Vec<String> = names.into_iter().take(TOLD).map(|name| format!("{name} {words}")).collect();
    if rest > 0 {
        lines.push(format!("and {rest} more that {words}"));
    }
    lines
}

/// Runs statements that return the names of what they changed, each with its words.
fn run_all(step: &Step<'_>, statements: &[(&str, &str)]) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    for (words, sql) in statements {
        // Every one may use the time.
        let names = step.rows(sql, params![step.now.as_millis()], |row| text(row, 0))?;
        lines.extend(told(names.into_iter().map(Option::unwrap_or_default).collect(), words));
    }
    Ok(lines)
}

/// Tables and indexes. They were made anew when this step's transaction began.
fn structure(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let mended = std::mem::take(&mut step.mended);
    Ok(mended.then(|| "tables or indexes were missing and are made anew".to_owned()).into_iter().collect())
}

fn unreadable_ids(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let all =
        step.rows("SELECT seq, id FROM message", [], |row| Ok((row.get::<_, i64>(0)?, text(row, 1)?)))?;
    let unreadable = all.into_iter().filter(|(_, id)| {
        // A text that no id can be.
        id.as_deref().is_none_or(|id| MessageId::parse(id).is_err())
    });
    let mut names = Vec::new();
    for (seq, _) in unreadable {
        let id = Piece::stand_in(seq);
        step.run(statements::RENAME_UNREADABLE, params![seq, id.as_str()])?;
        names.push(format!("message {id}"));
    }
    Ok(told(names, "had an unreadable id and has a new one"))
}

/// Work of which no message is left: that it was lost must not be lost too.
fn orphans(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let lost = "SELECT DISTINCT message FROM work w \
                WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.seq = w.message)";
    let mut names = Vec::new();
    for seq in step.rows(lost, [], |row| row.get::<_, i64>(0))? {
        names.push(format!("message {}", step.adopt(seq)?));
    }
    Ok(told(names, "was missing to its work, which is buried"))
}

/// Routings: pending, dead, or become the deliveries that are there.
fn routings(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let mut lines = run_all(
        step,
        &[
            (
                "was routed and did not say so",
                "UPDATE work SET place = 'expanded', turn = NULL, ready_at = NULL, due = NULL, owner = NULL, \
                 lease_no = NULL, lease_until = NULL, cause = NULL, died_at = NULL, history = NULL \
                 WHERE ?1 IS NOT NULL AND idx = 0 AND place <> 'expanded' \
                 AND EXISTS (SELECT 1 FROM work d WHERE d.message = work.message AND d.idx > 0) \
                 RETURNING (SELECT 'message ' || id FROM message WHERE seq = work.message)",
            ),
            (
                "had lost its routing, which had ended",
                "INSERT INTO work (message, idx, lane, place, deadline) \
                 SELECT m.seq, 0, 'in', 'expanded', ?1 FROM message m WHERE \
                 NOT EXISTS (SELECT 1 FROM work r WHERE r.message = m.seq AND r.idx = 0) \
                 AND EXISTS (SELECT 1 FROM work d WHERE d.message = m.seq) \
                 RETURNING (SELECT 'message ' || id FROM message WHERE seq = work.message)",
            ),
            (
                "had neither text nor work and is gone",
                "DELETE FROM message WHERE ?1 IS NOT NULL AND payload IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM work w WHERE w.message = seq) RETURNING 'message ' || id",
            ),
        ],
    )?;
    let lost = "SELECT seq, id FROM message m \
                WHERE NOT EXISTS (SELECT 1 FROM work w WHERE w.message = m.seq)";
    let mut names = Vec::new();
    for (seq, id) in step.rows(lost, [], |row| Ok((row.get::<_, i64>(0)?, text(row, 1)?)))? {
        let (turn, now) = (step.books.next_turn(), step.now.as_millis());
        step.run(
            "INSERT INTO work (message, idx, lane, place, deadline, turn, ready_at) \
             VALUES (?1, 0, 'in', 'ready', ?2, ?3, ?4)",
            params![seq, now.saturating_add(NEW_DEADLINE), turn, now],
        )?;
        step.ring("in");
        names.push(format!("message {}", id.unwrap_or_default()));
    }
    lines.extend(told(names, "had lost its routing and is routed again"));
    Ok(lines)
}

/// Work in no place goes back to its lane; what belongs to another place is wiped off.
fn places(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let unknown = pieces!(
        "WHERE w.place NOT IN ('ready', 'leased', 'delayed', 'parked', 'delivered', 'dead', 'expired', \
         'expanded') OR (w.place = 'expanded' AND w.idx > 0)"
    );
    let lost = pieces!(
        "WHERE (w.place = 'ready' AND (w.turn IS NULL OR w.ready_at IS NULL)) \
         OR (w.place = 'leased' AND (w.owner IS NULL OR w.lease_no IS NULL OR w.lease_until IS NULL)) \
         OR (w.place = 'delayed' AND w.due IS NULL) OR (w.place = 'parked' AND w.destination IS NULL)"
    );
    let mut names = Vec::new();
    for mut piece in step.pieces(unknown, [])?.into_iter().chain(step.pieces(lost, [])?) {
        piece.make_ready(step.books.next_turn(), step.now, false);
        step.save(&piece)?;
        step.ring(&piece.lane);
        names.push(piece.id.to_string());
    }
    let mut lines = told(names, "was lost and is ready again");
    let untidy = pieces!(
        "WHERE (w.place = 'leased' AND (w.turn IS NULL OR w.ready_at IS NULL)) \
         OR (w.place <> 'leased' AND (w.owner IS NOT NULL OR w.lease_no IS NOT NULL OR w.lease_until IS NOT NULL)) \
         OR (w.place <> 'delayed' AND w.due IS NOT NULL) \
         OR (w.place NOT IN ('ready', 'leased') AND (w.turn IS NOT NULL OR w.ready_at IS NOT NULL))"
    );
    let mut names = Vec::new();
    for mut piece in step.pieces(untidy, [])? {
        piece.keep_to_its_place(step.books.next_turn(), step.now);
        step.save(&piece)?;
        names.push(piece.id.to_string());
    }
    lines.extend(told(names, "kept what belongs to another place"));
    lines.extend(run_all(
        step,
        &[(
            "was a lane that was not listed",
            "INSERT INTO lane (name) SELECT DISTINCT lane FROM work w WHERE ?1 IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM lane l WHERE l.name = w.lane) RETURNING name",
        )],
    )?);
    Ok(lines)
}

/// Letters are of work that died, of a cause that fits.
fn letters(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let causes = DeadCause::ALL.map(|cause| format!("'{}'", cause.as_str())).join(", ");
    let wrong_cause = format!(
        "UPDATE work SET cause = CASE place WHEN 'expired' THEN 'expired' ELSE 'poison' END \
         WHERE ?1 IS NOT NULL AND died_at IS NOT NULL AND place IN ('dead', 'expired') \
         AND (cause IS NULL OR cause NOT IN ({causes}) OR (cause = 'expired') <> (place = 'expired')) \
         RETURNING (SELECT id FROM message WHERE seq = work.message) || '/' || idx"
    );
    run_all(
        step,
        &[
            (
                "was a letter of work that did not die",
                "UPDATE work SET cause = NULL, died_at = NULL WHERE ?1 IS NOT NULL \
                 AND ((died_at IS NOT NULL AND place NOT IN ('dead', 'expired')) \
                      OR (died_at IS NULL AND cause IS NOT NULL)) \
                 RETURNING (SELECT id FROM message WHERE seq = work.message) || '/' || idx",
            ),
            ("was a letter of another cause", &wrong_cause),
        ],
    )
}

/// What messages say of their pieces.
fn sums(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    run_all(
        step,
        &[(
            "counted its pieces wrongly",
            "UPDATE message SET pending = found.pending, letters = found.letters FROM \
             (SELECT w.message AS seq, \
              SUM(w.place IN ('ready', 'leased', 'delayed', 'parked')) AS pending, \
              SUM(w.died_at IS NOT NULL) AS letters FROM work w GROUP BY w.message) AS found \
             WHERE ?1 IS NOT NULL AND found.seq = message.seq \
             AND (message.pending <> found.pending OR message.letters <> found.letters) \
             RETURNING 'message ' || id",
        )],
    )
}

/// Work that can never be delivered.
fn hopeless(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let hopeless = pieces!(
        "WHERE w.place IN ('ready', 'leased', 'delayed', 'parked') \
         AND (m.payload IS NULL OR (w.idx > 0 AND w.recipient IS NULL))"
    );
    let mut names = Vec::new();
    for piece in step.pieces(hopeless, [])? {
        names.push(step.bury(piece, DeadCause::Poison)?.delivery.to_string());
    }
    Ok(told(names, "had no text or no recipient left and is buried"))
}

/// What is kept for nothing, and what would be kept for ever or not long enough.
fn needless(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let expires_at = step.now.plus(step.settings.retention).as_millis();
    let ended = format!(
        "UPDATE message SET expires_at = {expires_at} WHERE ?1 IS NOT NULL AND pending = 0 \
         AND expires_at IS NULL RETURNING 'message ' || id"
    );
    run_all(
        step,
        &[
            (
                "kept what nothing needs",
                "UPDATE work SET recipient = NULL, history = NULL WHERE ?1 IS NOT NULL \
                 AND place NOT IN ('ready', 'leased', 'delayed', 'parked') AND died_at IS NULL \
                 AND (recipient IS NOT NULL OR history IS NOT NULL) \
                 RETURNING (SELECT id FROM message WHERE seq = work.message) || '/' || idx",
            ),
            (
                "kept a text that nothing needs",
                "UPDATE message SET payload = NULL WHERE ?1 IS NOT NULL AND pending = 0 AND letters = 0 \
                 AND payload IS NOT NULL RETURNING 'message ' || id",
            ),
            ("had ended and did not expire", &ended),
            (
                "was to expire before its end",
                "UPDATE message SET expires_at = NULL WHERE ?1 IS NOT NULL AND pending > 0 \
                 AND expires_at IS NOT NULL RETURNING 'message ' || id",
            ),
        ],
    )
}

fn gates(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let of_the_lane = format!(
        "UPDATE gate SET wake_at = NULL WHERE ?1 IS NOT NULL AND destination = '{OF_THE_LANE}' \
         AND wake_at IS NOT NULL RETURNING lane"
    );
    run_all(
        step,
        &[
            (
                "had parked work that nothing woke",
                "INSERT INTO gate (lane, destination, tat_us, wake_at, quiet_at) \
                 SELECT DISTINCT lane, destination, 0, ?1, ?1 FROM work w WHERE place = 'parked' \
                 AND destination IS NOT NULL AND NOT EXISTS (SELECT 1 FROM gate g WHERE g.lane = w.lane \
                 AND g.destination = w.destination AND g.wake_at IS NOT NULL) \
                 ON CONFLICT (lane, destination) DO UPDATE SET wake_at = excluded.wake_at \
                 RETURNING 'a destination of the lane ' || lane",
            ),
            (
                "was woken without parked work",
                "UPDATE gate SET wake_at = NULL WHERE ?1 IS NOT NULL AND wake_at IS NOT NULL AND NOT EXISTS \
                 (SELECT 1 FROM work w WHERE w.place = 'parked' AND w.lane = gate.lane \
                 AND w.destination = gate.destination) RETURNING 'a destination of the lane ' || lane",
            ),
            ("was to be woken as a whole", &of_the_lane),
        ],
    )
}

/// The counters: what was made is what ended and what there is.
fn books(step: &mut Step<'_>) -> rusqlite::Result<Vec<String>> {
    let count = |step: &Step<'_>, sql: &str| -> rusqlite::Result<i64> {
        Ok(step.row(sql, [], |row| row.get::<_, Option<i64>>(0))?.flatten().unwrap_or(0))
    };
    let mut lines = Vec::new();
    let mut correct = |what: &str, booked: &mut i64, found: i64| {
        if *booked != found {
            lines.push(format!("the books said {booked} {what}, there are {found}"));
            *booked = found;
        }
    };
    for (what, of) in [("delivered", Place::Delivered), ("dead", Place::Dead), ("expired", Place::Expired)] {
        let booked = match of {
            Place::Delivered => &mut step.books.delivered,
            Place::Dead => &mut step.books.dead,
            _ => &mut step.books.expired,
        };
        if *booked < 0 {
            correct(&format!("deliveries {what}"), booked, 0);
        }
    }
    let there =
        count(step, "SELECT COUNT(*) FROM work WHERE place IN ('ready', 'leased', 'delayed', 'parked')")?;
    let mut pending = step.books.pending();
    correct("pending deliveries", &mut pending, there);
    step.books.made = step.books.delivered + step.books.dead + step.books.expired + there;
    let open = count(step, "SELECT COUNT(*) FROM message WHERE pending > 0")?;
    correct("unfinished messages", &mut step.books.open, open);
    for cause in DeadCause::ALL {
        let word = cause.as_str();
        let sql = format!("SELECT COUNT(*) FROM work WHERE cause = '{word}' AND died_at IS NOT NULL");
        let found = count(step, &sql)?;
        correct(&format!("letters of the cause {word}"), step.books.letters(cause), found);
    }
    let turn = count(step, "SELECT MAX(turn) FROM work")?;
    let lease = count(step, "SELECT MAX(lease_no) FROM work")?;
    if turn > step.books.turn || lease > step.books.lease {
        step.books.turn = step.books.turn.max(turn);
        step.books.lease = step.books.lease.max(lease);
        lines.push("a turn or lease number was given that the books did not know".to_owned());
    }
    Ok(lines)
}
