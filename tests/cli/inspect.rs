//! `smsctl inspect`: what is recognised in a text, without any configuration.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::assert_fields;
use super::bench::{Ran, bare_command, run};

fn inspect(arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bare_command(folder.path());
    command.arg("inspect").args(arguments);
    run(command)
}

/// Answers to the lines of `input`, the exit code and the complaints.
fn stream(input: &[u8]) -> (Vec<Value>, Ran) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bare_command(folder.path());
    command.args(["inspect", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ran = Ran::from(child.wait_with_output().unwrap());
    writer.join().unwrap().unwrap();
    let answers = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (answers, ran)
}

#[test]
fn a_text_is_inspected_without_a_configuration() {
    let found =
        inspect(&["--body", "Fenwick: 550182 is your code, valid for 10 minutes", "--json"]).fine().json();
    assert_fields(&found, &["code", "service", "domain", "expires_in", "confidence", "evidence"]);
    let confidence = found["confidence"].as_f64().unwrap();
    assert!((0.5..=1.0).contains(&confidence), "{found}");
    assert_eq!(found["code"], "550182");
    assert_eq!(found["service"], "Fenwick");
    assert_eq!(found["domain"], Value::Null);
    assert_eq!(found["expires_in"], "10m");
    assert_eq!(found["evidence"], json!({"code": "noun", "service": "prefix"}));

    let page = inspect(&["--body", "550182 is your code\n@tarn.example #550182"]).fine().out;
    assert!(page.contains("code        550182 (by its domain-bound line)\n"), "{page}");
    assert!(page.contains("domain      tarn.example\n"), "{page}");
    let named = inspect(&["--body", "Your code is 550182", "--from", "FENWICK", "--json"]).fine().json();
    assert_eq!((&named["service"], &named["evidence"]["service"]), (&json!("FENWICK"), &json!("sender")));
}

#[test]
fn a_text_without_a_code_is_told_as_such() {
    for body in ["see you at 1830", "", "-"] {
        let found = inspect(&["--body", body, "--json"]).fine().json();
        assert_eq!((&found["code"], &found["service"]), (&Value::Null, &Value::Null), "{body}");
        assert_eq!(found["confidence"], json!(0.0));
    }
    assert!(inspect(&["--body", "hello"]).fine().out.starts_with("code        -\n"));
}

#[test]
fn a_stream_of_texts_is_answered_line_by_line_and_in_order() {
    let (answers, ran) = stream(
        "{\"text\":\"Your code is 550182\",\"id\":7}\n\n{\"text\":\"hello\",\"from\":null}\n\
         {\"from\":\"FENWICK\",\"text\":\"TAN: 771204\"}\n{\"text\":\"验证码 440912\",\"from\":12}"
            .as_bytes(),
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let codes: Vec<&Value> = answers.iter().map(|answer| &answer["code"]).collect();
    assert_eq!(codes, [&json!("550182"), &Value::Null, &json!("771204"), &json!("440912")]);
    assert_eq!(answers[2]["service"], "FENWICK");
}

#[test]
fn a_line_that_is_no_text_is_answered_too_and_told() {
    let (answers, ran) = stream(
        b"{\"text\":\"Your code is 550182\"}\nnonsense\n{\"body\":1}\n\xff\n{\"text\":\"code 771204\"}\n",
    );
    assert_eq!(ran.code, 1);
    assert_eq!(answers.len(), 5);
    assert_eq!((&answers[0]["code"], &answers[4]["code"]), (&json!("550182"), &json!("771204")));
    for answer in &answers[1..4] {
        assert_eq!(
            *answer,
            json!({"code": null, "service": null, "error": "not a JSON object with a `text`"})
        );
    }
    for part in ["line 2: ", "line 3: ", "line 4: ", "3 lines could not be read"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert!(!ran.err.contains("nonsense"), "{}", ran.err);
}

#[test]
fn a_text_is_given_in_one_way() {
    for arguments in [&[] as &[&str], &["--stdin", "--body", "x"], &["--stdin", "--from", "x"], &["--json"]] {
        let ran = inspect(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
    }
}
