//! The NATS sink through outages: a server that is away, killed, paused, slow or about to stop, and lost answers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use rtm_sink::conformance::{converge, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, Sink, Topic};
use rtm_sink_nats::{CheckError, NatsOptions, NatsSink, PublishFailure};
use rtm_tests::brokers::{self, Nats};
use rtm_tests::wait_for;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::nats_proxy::Proxy;
use super::nats_sink::{
    Mode, SHORT, SOON, TOO_LARGE, assert_stored, both_modes, create, failed, failure, hasty_sink,
    id_of, options, own_jetstream, page, publish, sink, through, topic,
};

/// Holds: a server that is away at the start is waited for, and after `close` nothing is published.
async fn a_server_that_is_away_at_the_start(mode: Mode) {
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    server.kill().await.unwrap();
    let sink = hasty_sink(&server, "RTM", mode).await;
    let records = records(&Topic::from("rtm.a"), 10);
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::NotConnected(Some(_))),
        "{said}"
    );
    assert!(!sink.stats().up);
    assert!(matches!(
        sink.check(&[], false).await,
        Err(CheckError::Unreachable(Some(_)))
    ));

    server.restart().await.unwrap();
    assert_eq!(converge(&sink, &records).await, []);
    assert!(sink.stats().up);
    timeout(SOON, sink.close()).await.expect("closes");
    let (error, _) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert_stored(&server, "RTM", &records).await;
}

/// Holds: through kills in the middle of publishing nothing is lost, nothing is stored twice, and the order of all
/// records is that of publishing. Left to itself the client library breaks the last: what it queued while the server was
/// away it sends later, past records that were lost.
async fn order_survives_kills(mode: Mode) {
    const KILLS: u64 = 4;
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = Arc::new(sink(&server, "RTM", mode).await);
    let records = records(&Topic::from("rtm.a"), 40_000);
    let publishing = tokio::spawn({
        let (sink, records) = (Arc::clone(&sink), records.clone());
        async move {
            for batch in records.chunks(5000) {
                assert_eq!(converge(&*sink, batch).await, []);
            }
        }
    });
    for _ in 0..KILLS {
        // Counted when a call ends, so that the kill comes in the middle of the next one.
        let goal = sink.stats().confirmed + 4000;
        let reached = async || sink.stats().confirmed >= goal;
        wait_for("some records", SOON, reached).await.unwrap();
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    }
    timeout(SOON, publishing).await.expect("ends").unwrap();
    assert_stored(&server, "RTM", &records).await;
    let stats = sink.stats();
    // A call whose records were all acknowledged ends without the connection, so two kills may cost one reconnection.
    assert!((1..=KILLS).contains(&stats.reconnects), "{stats:?}");
    assert_eq!(stats.out_of_order, 0);
}

/// Holds: a server that stops answering makes calls fail after the acknowledgement timeout, and when it goes on,
/// everything arrives once and in order.
async fn a_paused_server_is_unavailable(mode: Mode) {
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = hasty_sink(&server, "RTM", mode).await;
    let records = records(&Topic::from("rtm.a"), 8000);
    publish(&sink, &records[..100]).await.unwrap();
    server.pause().await.unwrap();
    for _ in 0..2 {
        let (error, said) = failed(&sink, &records[100..]).await;
        assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
        assert!(
            matches!(failure(&error), PublishFailure::Timeout(_)),
            "{said}"
        );
        assert!(!sink.stats().up);
    }
    server.resume().await.unwrap();
    assert_eq!(converge(&sink, &records[100..]).await, []);
    assert_stored(&server, "RTM", &records).await;
    assert!(sink.stats().up);
}

/// Holds: acknowledgements that come late, for records of a dropped call, confirm none of the next call's: those are
/// refused here, every one.
async fn late_acknowledgements_confirm_nothing(mode: Mode) {
    let mut server = Nats::start_own().await.unwrap();
    let config = Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        max_message_size: 10_000,
        allow_atomic_publish: true,
        ..Config::default()
    };
    create(&server, config).await;
    let sink = sink(&server, "RTM", mode).await;
    let topic = Topic::from("rtm.a");
    publish(&sink, &records(&topic, 1)).await.unwrap();
    server.pause().await.unwrap();
    let dropped = timeout(SHORT, sink.publish(&page(&topic, 40))).await;
    assert!(dropped.is_err(), "nothing is confirmed while paused");
    let mut refused = page(&topic, 40);
    for record in &mut refused {
        record.payload = Bytes::from(vec![b' '; TOO_LARGE]);
    }
    let (result, ()) = tokio::join!(publish(&sink, &refused), async {
        // Sent before the server goes on, so that the late answers find it waiting.
        tokio::time::sleep(SHORT).await;
        server.resume().await.unwrap();
    });
    let outcomes = result.expect_err("refused").outcomes;
    let rejected = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_));
    assert!(outcomes.iter().all(rejected), "{outcomes:?}");
    assert_eq!(server.read_all("RTM").await.unwrap().len(), 41);
}

/// Holds: what was queued for a connection is never sent on another. It would come before records that the first one
/// lost: the client library does so, left to itself.
async fn nothing_queued_outlives_its_connection(mode: Mode) {
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = hasty_sink(&server, "RTM", mode).await;
    let mut records = records(&Topic::from("rtm.a"), 8000);
    for record in &mut records {
        record.payload = Bytes::from(vec![b' '; 2000]);
    }
    publish(&sink, &records[..10]).await.unwrap();
    // Nobody reads: the sockets fill, then the client's queue. Calls still end, one that needs a new inbox as well.
    server.pause().await.unwrap();
    let start = Instant::now();
    let ((one, _), (other, _)) =
        tokio::join!(failed(&sink, &records[10..]), failed(&sink, &records[10..]));
    assert_eq!(one.kind, PublishErrorKind::Unavailable, "{one:?}");
    assert_eq!(other.kind, PublishErrorKind::Unavailable, "{other:?}");
    assert!(start.elapsed() < Duration::from_secs(8), "a call hung");
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    let back = async || sink.stats().reconnects > 0;
    wait_for("the sink", SOON, back).await.unwrap();
    tokio::time::sleep(SHORT).await;
    assert_stored(&server, "RTM", &records[..10]).await;
    assert_eq!(converge(&sink, &records[10..]).await, []);
    assert_stored(&server, "RTM", &records).await;
}

/// Holds: a record whose acknowledgement was lost is published again, known by its id and stored once; whether the
/// acknowledgements alone are lost or the connection with them.
#[tokio::test]
async fn lost_answers() {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = through(&proxy, nats, &name, Mode::Single);
    let sink = NatsSink::connect(options).await.unwrap();
    let records = records(&topic(&name, "a"), 1500);

    proxy.lose_answers_after(300);
    let (error, said) = failed(&sink, &records[..500]).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Timeout(_)),
        "{said}"
    );
    let (confirmed, unknown) = error.outcomes.split_at(300);
    assert!(confirmed.iter().all(|o| *o == Outcome::Confirmed));
    assert!(unknown.iter().all(|o| *o == Outcome::Unknown));
    assert_eq!(proxy.lost(), 200);
    proxy.lose_nothing();
    publish(&sink, &records[300..500])
        .await
        .expect("confirmed at the second attempt");
    assert_eq!(sink.stats().duplicates, 200);

    proxy.lose_answers_after(400);
    let ((error, said), ()) = tokio::join!(failed(&sink, &records[500..]), async {
        let lost = async || proxy.lost() >= 300;
        wait_for("answers to be lost", SOON, lost).await.unwrap();
        proxy.cut();
    });
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Disconnected { .. }),
        "{said}"
    );
    proxy.lose_nothing();
    assert_eq!(converge(&sink, &records[900..]).await, []);
    assert_stored(nats, &name, &records).await;
    let stats = sink.stats();
    assert!(
        stats.duplicates >= 300 && stats.out_of_order == 0 && stats.reconnects == 1,
        "{stats:?}"
    );
}

/// Holds: a slow server is not an outage. As long as acknowledgements come in, however slowly, a call goes on; where they
/// take longer than the acknowledgement timeout it is unavailable, and nothing is stored twice.
async fn a_slow_server(mode: Mode) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = NatsOptions {
        in_flight: 100,
        ..through(&proxy, nats, &name, mode)
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let mut records = records(&topic(&name, "a"), 1500);
    for record in &mut records[600..1000] {
        record.payload = Bytes::from(vec![b' '; 2000]);
    }
    publish(&sink, &records[..100]).await.unwrap();

    let start = Instant::now();
    proxy.set_latency(SHORT / 5);
    publish(&sink, &records[100..600]).await.expect("late");
    proxy.set_latency(Duration::ZERO);
    proxy.set_rate(4096);
    publish(&sink, &records[600..1000])
        .await
        .expect("throttled");
    proxy.set_rate(0);
    assert!(start.elapsed() > 2 * SHORT, "it was slow");
    assert!(sink.stats().up && sink.stats().duplicates == 0);

    proxy.set_latency(3 * SHORT);
    let (error, said) = failed(&sink, &records[1000..]).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Timeout(_)),
        "{said}"
    );
    proxy.set_latency(Duration::ZERO);
    assert_eq!(converge(&sink, &records[1000..]).await, []);
    assert_stored(nats, &name, &records).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

/// Holds: who waits for others to make room in the window is not told that the server is silent, however long that takes:
/// with many App IDs a backlog would else be published again and again.
async fn many_calls_wait_for_a_slow_server(mode: Mode) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = NatsOptions {
        in_flight: 2,
        ..through(&proxy, nats, &name, mode)
    };
    let sink = Arc::new(NatsSink::connect(options).await.unwrap());
    // So many that even the first record of a page waits for longer than the server may be silent.
    let pages: Vec<_> = (0..24)
        .map(|n| page(&topic(&name, &format!("a{n}")), 2))
        .collect();
    publish(&sink, &pages[0]).await.unwrap();
    proxy.set_latency(SHORT / 5);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for page in pages.clone() {
        let sink = Arc::clone(&sink);
        calls.spawn(async move { sink.publish(&page).await });
    }
    for ended in calls.join_all().await {
        ended.expect("the server answers");
    }
    assert!(start.elapsed() > 2 * SHORT, "the last ones waited for long");
    let stats = sink.stats();
    assert_eq!((stats.duplicates, stats.out_of_order), (2, 0), "{stats:?}");
    let stored = nats.read_all(&name).await.unwrap();
    assert_eq!(stored.len(), 48);
}

/// Holds: of a long outage nothing stays behind, however many calls failed meanwhile: each connection is a new client's,
/// since one client never forgets what was not answered (nats.rs#1617).
async fn nothing_is_left_of_outages(mode: Mode) {
    const OUTAGES: u64 = 2;
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let options = NatsOptions {
        ack_timeout: SHORT / 10,
        ..options(&server, "RTM", mode)
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let records = records(&Topic::from("rtm.a"), 100);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    assert_eq!(converge(&sink, &records[..10]).await, []);
    let before = tasks();
    for _ in 0..OUTAGES {
        server.pause().await.unwrap();
        let (error, said) = failed(&sink, &records).await;
        assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
        server.kill().await.unwrap();
        for _ in 0..20 {
            let (error, said) = failed(&sink, &records).await;
            assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
        }
        server.restart().await.unwrap();
        assert_eq!(converge(&sink, &records).await, []);
        // The old client may still be ending.
        let gone = async || tasks() <= before;
        wait_for("what outages left to go", SOON, gone)
            .await
            .unwrap();
    }
    assert_eq!(sink.stats().reconnects, OUTAGES);
    assert_stored(&server, "RTM", &records).await;
}

/// Holds: a server that is about to stop is an outage like another: it is waited for, and order is kept.
async fn a_server_about_to_stop(mode: Mode) {
    let configuration = "lame_duck_duration: 30s\nlame_duck_grace_period: 1s";
    let mut server = Nats::start_own_with(configuration).await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = Arc::new(hasty_sink(&server, "RTM", mode).await);
    let records = records(&Topic::from("rtm.a"), 4000);
    publish(&sink, &records[..1000]).await.unwrap();
    server.lame_duck().await.unwrap();
    let mut left = &records[1000..];
    let failed = timeout(SOON, async {
        loop {
            let (batch, rest) = left.split_at(10);
            match sink.publish(batch).await {
                Ok(()) => left = rest,
                Err(error) => return error,
            }
        }
    });
    let error = failed.await.expect("it stops");
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
    // Once it takes no connections at all, still only that.
    let away = async || {
        let Err(error) = sink.publish(&left[..10]).await else {
            panic!("confirmed by a server that stops")
        };
        assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
        matches!(failure(&error), PublishFailure::NotConnected(_))
    };
    wait_for("the connection to end", SOON, away).await.unwrap();
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(converge(&*sink, left).await, []);
    assert_stored(&server, "RTM", &records).await;
}

/// Holds: a server that comes back with a lower `max_payload` takes what it takes; the rest is told from it.
async fn a_lower_max_payload(mode: Mode) {
    let mut server = Nats::start_own().await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = hasty_sink(&server, "RTM", mode).await;
    let mut records = records(&Topic::from("rtm.a"), 200);
    for index in [50, 150] {
        records[index].payload = Bytes::from(vec![b' '; TOO_LARGE]);
    }
    publish(&sink, &records[..100]).await.unwrap();
    server.kill().await.unwrap();
    server.restart_with("max_payload: 10000").await.unwrap();
    assert_eq!(
        converge(&sink, &records[100..]).await,
        [records[150].id],
        "dead-lettered"
    );
    records.remove(150);
    assert_stored(&server, "RTM", &records).await;
}

/// Numbers that look random, the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Publishes until all is confirmed, and drops a call now and then.
async fn publish_impatiently(sink: Arc<NatsSink>, records: Vec<Record>, mut random: Random) {
    for batch in records.chunks(200) {
        let mut left = batch.to_vec();
        while !left.is_empty() {
            let patience = Duration::from_millis(20 + random.below(3000));
            match timeout(patience, sink.publish(&left)).await {
                Ok(Ok(())) => left.clear(),
                Ok(Err(error)) => {
                    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
                    let mut outcomes = error.outcomes.iter();
                    left.retain(|_| *outcomes.next().unwrap() == Outcome::Unknown);
                }
                Err(_) => (),
            }
        }
    }
}

/// Holds: whatever the network does, alone or all at once, and whenever calls are dropped, each record is stored once,
/// and each topic in its order.
async fn any_mix_of_network_faults(mode: Mode) {
    const TOPICS: [&str; 3] = ["a", "b", "c"];
    let seed = std::env::var("RTM_TEST_SEED").map_or_else(
        |_| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("RTM_TEST_SEED={seed} cargo test -p rtm-tests --test it any_mix_of_network_faults");
    let mut random = Random(seed | 1);
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = NatsOptions {
        in_flight: 300,
        ..through(&proxy, nats, &name, mode)
    };
    let sink = Arc::new(NatsSink::connect(options).await.unwrap());
    let all = TOPICS.map(|rest| records(&topic(&name, rest), 6000));
    let mut publishing = JoinSet::new();
    for records in all.clone() {
        let random = Random(random.below(u64::MAX) | 1);
        publishing.spawn(publish_impatiently(Arc::clone(&sink), records, random));
    }
    for _ in 0..12 {
        match random.below(4) {
            0 => proxy.cut(),
            1 => proxy.lose_answers_after(random.below(300)),
            2 => proxy.set_latency(Duration::from_millis(random.below(100))),
            _ => proxy.set_rate(2000 + random.below(8000)),
        }
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        if random.below(3) == 0 {
            proxy.lose_nothing();
            proxy.set_latency(Duration::ZERO);
            proxy.set_rate(0);
        }
    }
    proxy.lose_nothing();
    proxy.set_latency(Duration::ZERO);
    proxy.set_rate(0);
    while let Some(ended) = timeout(SOON, publishing.join_next()).await.expect("ends") {
        ended.unwrap();
    }
    let stored = nats.read_all(&name).await.unwrap();
    for (rest, records) in TOPICS.iter().zip(&all) {
        let topic = topic(&name, rest);
        let stored = stored
            .iter()
            .filter(|record| record.subject == topic.as_str());
        let stored: Vec<String> = stored.map(id_of).collect();
        let expected: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
        assert!(stored == expected, "{topic}: {} stored", stored.len());
    }
    let stats = sink.stats();
    println!("{stats:?}, {} answers lost", proxy.lost());
}

both_modes! {
    a_server_that_is_away_at_the_start,
    order_survives_kills,
    a_paused_server_is_unavailable,
    late_acknowledgements_confirm_nothing,
    nothing_queued_outlives_its_connection,
    a_slow_server,
    many_calls_wait_for_a_slow_server,
    nothing_is_left_of_outages,
    a_server_about_to_stop,
    a_lower_max_payload,
    any_mix_of_network_faults,
}
