//! A journal entry of a full page to records: decoded, tagged, keyed and routed, and the parts of that which can be had
//! alone. `cargo bench -p rtm-record`.

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use rtm_journal::{Entry, Epoch, Position};
use rtm_record::{ALL, KeyBy, Router, Routes, STATIC, Template, entry};
use rtm_source::{Page, Region, Ring, Stream};

const EVENTS: usize = 1_000;

fn page() -> Result<Page, Box<dyn Error>> {
    let mut body =
        r#"{"result":"success","request_id":"10116762670167749259","events":["#.to_owned();
    for number in 0..EVENTS {
        let comma = if number == 0 { "" } else { "," };
        write!(
            body,
            r#"{comma}{{"group_id":"channel-{}","user_id":"rtmtest_{}w7%","type":"Join","ms":{}}}"#,
            number % 97,
            number % 499,
            1_578_027_418_981 + number
        )?;
    }
    body += "]}";
    Ok(Page {
        ring: Ring {
            region: Arc::new(Region::builtin("eu-west-1")?),
            stream: Stream::Channel,
        },
        fetched_at: jiff::Timestamp::now(),
        status: 200,
        request_id: Some("10116762670167749259".to_owned()),
        body: body.into(),
        complete: true,
        count: EVENTS,
        unread: false,
        first_ms: None,
        last_ms: None,
    })
}

fn routes(topic: &str, known: &[rtm_record::Variable], headers: bool) -> Result<Routes, String> {
    let template = |text: &str| Template::parse(text, known);
    Ok(Routes {
        topic: template(topic)?,
        dead_letters: template("rtm.dead_letters")?,
        key: KeyBy::Auto,
        headers,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let page = page()?;
    let journaled = Entry {
        position: Position(4_711),
        epoch: Epoch(0x9f1c_e200),
        appended_at: SystemTime::now(),
        bytes: Bytes::from(entry::encode("main", "0a1b", &page, None)),
        count: u32::try_from(EVENTS)?,
    };
    let mut group = criterion.benchmark_group("entry");
    group.throughput(Throughput::Bytes(page.body.len() as u64));
    group.bench_function("encode", |bench| {
        bench.iter(|| entry::encode("main", "0a1b", black_box(&page), None));
    });
    group.bench_function("decode", |bench| {
        bench.iter(|| entry::decode(black_box(&journaled.bytes)).map(|(_, body)| body.len()));
    });
    group.finish();

    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("decode and event_key", |bench| {
        bench.iter(|| Router::keys(black_box(&journaled)).map(|(_, _, keys)| keys.len()));
    });
    for (name, topic, known, headers) in [
        ("records", "rtm.{stream}_events", STATIC, false),
        ("records with headers", "rtm.{stream}_events", STATIC, true),
        (
            "records, a subject for each user",
            "rtm.{stream}.{user_id}",
            ALL,
            false,
        ),
    ] {
        let mut router = Router::new(routes(topic, known, headers)?);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut records = Vec::with_capacity(EVENTS);
                router
                    .each(black_box(&journaled), 0..rtm_record::SLICE, |_, made| {
                        records.push(made.record);
                    })
                    .map(|_| records.len())
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
