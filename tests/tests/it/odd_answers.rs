//! Agora answers in ways that nobody expects, to the real binary: nothing of it is dropped.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_tests::bridge::Bridge;
use rtm_tests::wait_for;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

const EVENT: &str = r#"{"user_id":"u","type":"Login","ms":1578027420761}"#;

fn page(events: &str) -> Vec<u8> {
    format!(r#"{{"result":"success","request_id":"1","events":[{events}]}}"#).into_bytes()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A server that gives these answers for user events, one after the other, and then empty pages. Says how many are left.
fn server(mut answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    answers.reverse();
    let left = Arc::new(Mutex::new(answers));
    let answers = Arc::clone(&left);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || serve(connection.unwrap(), &answers));
        }
    });
    (url, left)
}

fn serve(mut connection: TcpStream, answers: &Mutex<Vec<Vec<u8>>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let of_users = head.starts_with("GET") && head.contains("user_events");
    let next = if of_users {
        answers.lock().unwrap().pop()
    } else {
        None
    };
    let answer = next.unwrap_or_else(|| answer("200 OK", &page("")));
    let _ = connection.write_all(&answer);
}

/// Holds: what arrived and may hold events is in the sink, as events or as dead letters with its bytes, the account balances,
/// and the log says where it is kept, of equal answers once.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_reaches_the_sink() {
    let nested = |id: u32| {
        format!(r#"{{"result":"success","request_id":"{id}","data":{{"events":[{EVENT}]}}}}"#)
    };
    let odd: Vec<Vec<u8>> = vec![
        format!("[{EVENT}]").into_bytes(),
        nested(1).into_bytes(),
        nested(2).into_bytes(),
        nested(3).into_bytes(),
        format!(r#"{{"result":"success","request_id":"1","event_list":[{EVENT}]}}"#).into_bytes(),
        b"<br />\n<b>Warning</b>: x\n{\"events\":[]}".to_vec(),
        b"\x78\x9c\xff\xfe not JSON".to_vec(),
        // Cut.
        br#"{"result":"success","request_id":"1","events":[{"user_id":"cut"#.to_vec(),
    ];
    let mut answers = Vec::new();
    for body in &odd {
        answers.push(answer("200 OK", body));
        // So that no backoff grows.
        answers.push(answer(
            "203 Fine\r\nX-Folded: a\r\n b\r\nX-Space : c",
            &page(EVENT),
        ));
    }
    let (url, left) = server(answers);
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| dir.path().join(name);
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{}\"\n[[apps]]\nname = \"main\"\napp_id = \"0a1b\"\n\
         auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\nregions = [{{ name = \"eu\", base_url = \"{url}\" }}]\n\
         [sinks.out]\ntype = \"file\"\npath = \"{}\"\n",
        of("journal").display(),
        of("out.jsonl").display()
    );
    std::fs::write(of("config.toml"), config).unwrap();
    let log = of("bridge.log");
    let mut bridge = Bridge::start(&of("config.toml"), &[], &log).await.unwrap();
    let expected = 2 * odd.len();
    wait_for("all answers", SOON, async || {
        left.lock().unwrap().is_empty()
    })
    .await
    .unwrap();
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(of("out.jsonl")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    };
    let settled = wait_for("every record", SOON, async || {
        let metrics = bridge.metrics().await.unwrap();
        let sum = |name: &str| {
            metrics
                .sum(&format!("rtm_bridge_{name}"), &[("app", "main")])
                .unwrap()
        };
        let stored = sum("events_stored_total");
        let dead = sum("records_dead_lettered_total");
        stored == expected as f64
            && dead == odd.len() as f64
            && stored == sum("records_confirmed_total") + dead + sum("records_dropped_total")
            && sum("events_fetched_total") == stored
    });
    settled.await.unwrap();
    let lines = lines();
    assert_eq!(lines.len(), expected);
    let letters: Vec<_> = lines
        .iter()
        .filter(|line| line["reason"] == "unreadable")
        .collect();
    assert_eq!(letters.len(), odd.len());
    for (letter, body) in letters.iter().zip(&odd) {
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        match std::str::from_utf8(body) {
            Ok(text) => assert_eq!(letter["raw"], text),
            Err(_) => assert_eq!(letter["raw_hex"], hex),
        }
    }
    let metrics = bridge.metrics().await.unwrap();
    let lost = metrics
        .sum("rtm_bridge_events_possibly_lost_total", &[])
        .unwrap();
    assert_eq!(lost, 1_000.0 * odd.len() as f64);
    let estimated = metrics
        .sum("rtm_bridge_events_possibly_lost_estimated_total", &[])
        .unwrap();
    assert!(estimated < lost / 10.0, "{estimated}");
    bridge.process.terminate(SOON).await.unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    let kept = log
        .lines()
        .filter(|line| line.contains("it is kept in the journal") && line.contains("position"));
    assert_eq!(kept.count(), odd.len() - 2, "three are equal: {log}");
    assert_eq!(log.matches("odd status").count(), 1, "{log}");
}
