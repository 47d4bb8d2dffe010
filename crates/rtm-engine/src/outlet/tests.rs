//! One lane's way out to a broker that stores records once and only once.

use std::collections::VecDeque;
use std::sync::Mutex;

use rtm_journal::sim::SimDisk;
use rtm_sink::{
    AnySink, ExactLimits, MemorySink, Outcome, PublishError, PublishErrorKind, RecordId,
};
use tokio::time::timeout;

use super::*;
use crate::bridge::publish_all;
use crate::lock::lock;
use crate::poison;
use crate::poison::tests::Life;

/// Longer than anything takes that does not wait for somebody.
const LONG: Duration = Duration::from_secs(30);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is stored, and the answer is lost.
    LoseAnswer,
    /// It is not stored, and nobody says so.
    Lose,
    /// It does not end, nor is it stored.
    Hang,
    /// Another process stores something first.
    Overtake,
    /// It is stored, and the process dies before it hears of it.
    StoreAndHang,
    /// The first record is refused.
    Refuse,
}

/// A broker that does as it is told, and notes the records and bytes of each call. Clones are the same one.
#[derive(Clone)]
struct Scripted {
    store: MemorySink,
    limits: ExactLimits,
    fates: Arc<Mutex<VecDeque<Option<Fate>>>>,
    calls: Arc<Mutex<Vec<(usize, usize)>>>,
    recalls: Arc<Mutex<u64>>,
}

impl Scripted {
    fn new(records: usize, bytes: usize) -> Scripted {
        Scripted {
            store: MemorySink::exact(),
            limits: ExactLimits { records, bytes },
            fates: Arc::default(),
            calls: Arc::default(),
            recalls: Arc::default(),
        }
    }

    /// Another client of the same store, for another process.
    fn another(&self, records: usize) -> Scripted {
        Scripted {
            store: self.store.another(),
            ..Scripted::new(records, self.limits.bytes)
        }
    }

    /// What becomes of the next calls.
    fn then(&self, fates: &[Option<Fate>]) {
        lock(&self.fates).extend(fates);
    }

    fn client(&self) -> AnySink {
        AnySink::new(Arc::new(self.clone()))
    }

    /// The ids of what is stored, in order.
    fn stored(&self) -> Vec<RecordId> {
        let records = self.store.records();
        records.iter().map(|record| record.id).collect()
    }

    /// Holds: so many events are stored, each once, and in order.
    fn assert_once(&self, events: usize) {
        let stored = self.stored();
        assert_eq!(stored.len(), events, "{stored:?}");
        let place = |id: &RecordId| (id.position, id.offset);
        assert!(
            stored.is_sorted_by(|a, b| place(a) < place(b)),
            "{stored:?}"
        );
    }

    async fn overtake(&self, key: &ProgressKey) {
        let other = self.store.another();
        let value = format!(
            r#"{{"v":1,"process":"{:016x}","through":900,"epoch":"{:016x}","tally":{{"c":0}}}}"#,
            u64::MAX,
            u64::MAX
        );
        let progress = Progress {
            key: key.clone(),
            value: value.into(),
        };
        other.recall(key).await.unwrap();
        other.publish_exactly(&[], &progress).await.unwrap();
    }
}

impl Sink for Scripted {
    async fn publish(&self, _: &[Record]) -> Result<(), PublishError> {
        unreachable!("each record is to be stored once")
    }

    fn exact(&self) -> Option<ExactLimits> {
        Some(self.limits)
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let bytes = records.iter().map(|record| record.payload.len()).sum();
        lock(&self.calls).push((records.len(), bytes));
        let fate = lock(&self.fates).pop_front().flatten();
        let kind = PublishErrorKind::Unavailable;
        let unknown = Err(PublishError::unknown(kind, records.len(), "as told"));
        match fate {
            None => {}
            Some(Fate::LoseAnswer) => {
                self.store.publish_exactly(records, progress).await?;
                return unknown;
            }
            Some(Fate::Lose) => return unknown,
            Some(Fate::Hang) => std::future::pending().await,
            Some(Fate::StoreAndHang) => {
                self.store.publish_exactly(records, progress).await?;
                std::future::pending::<()>().await;
            }
            Some(Fate::Overtake) => self.overtake(&progress.key).await,
            Some(Fate::Refuse) => {
                let mut outcomes = vec![Outcome::Unknown; records.len()];
                outcomes[0] = Outcome::Rejected(Reason {
                    code: "policy",
                    message: "as told".to_owned(),
                });
                return Err(PublishError {
                    kind: PublishErrorKind::Rejected,
                    outcomes,
                    source: "as told".into(),
                });
            }
        }
        self.store.publish_exactly(records, progress).await
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        *lock(&self.recalls) += 1;
        self.store.recall(key).await
    }
}

impl Life {
    async fn with(disk: Arc<SimDisk>, sink: &Scripted) -> Life {
        let mut life = Life::begin_with(disk, sink.client()).await;
        life.outlet.tally.stalls = 0;
        life
    }

    async fn next(self, sink: &Scripted) -> Life {
        Life::with(self.disk.after_kill(), sink).await
    }

    /// As [`Life::next`], and it is known that the last one has died.
    async fn crash(self, sink: &Scripted) -> Life {
        Life::begin_with(self.disk.after_kill(), sink.client()).await
    }

    /// A page of so many events with so many bytes each, give or take.
    async fn append_events(&mut self, events: usize, bytes: usize) {
        let filler = "x".repeat(bytes);
        let event = format!(r#"{{"user_id":"u","type":"Login","ms":1,"filler":"{filler}"}}"#);
        let all = vec![event; events].join(",");
        let body = format!(r#"{{"events":[{all}]}}"#);
        self.append_page(&body, events as u32).await;
    }

    /// Publishes what there is. Says whether that has ended.
    async fn drain(&mut self, sink: &Scripted) -> bool {
        self.drain_for(LONG, sink).await
    }

    async fn drain_for(&mut self, time: Duration, sink: &Scripted) -> bool {
        self.outlet.plan.ending = Ending::WhenEmpty;
        let publishing = timeout(time, publish_all(&mut self.outlet, sink));
        self.driver.run_during(publishing).await.is_ok()
    }

    /// Holds: nothing waits, and the account says of these events what became of them.
    fn assert_settled(&self, events: u64) {
        let tally = &self.outlet.tally;
        let settled = (self.outlet.pending(), tally.settled());
        assert_eq!(settled, (0, events), "{tally:?}");
    }
}

/// Holds: no call has more bytes than the sink takes, save for one record that is larger by itself, and all is stored once.
#[tokio::test(start_paused = true)]
async fn calls_are_cut_by_bytes() {
    let sink = Scripted::new(100, 8_000);
    let mut life = Life::with(SimDisk::new(1), &sink).await;
    life.append_events(40, 900).await;
    life.append_events(2, 20_000).await;
    life.append_events(3, 10).await;
    assert!(life.drain(&sink).await);
    for (records, bytes) in &*lock(&sink.calls) {
        assert!(*records == 1 || *bytes <= 8_000, "{records}: {bytes}");
    }
    sink.assert_once(45);
    life.assert_settled(45);
}

/// Holds: what an entry has stored of it counts once, wherever the process that follows cuts it, and where that one dies as
/// well before its cursor is durable.
#[tokio::test(start_paused = true)]
async fn the_account_survives_another_cut() {
    for (first, second, third) in [(3, 100, 100), (3, 2, 5), (4, 6, 1), (2, 5, 100)] {
        let sink = Scripted::new(first, 1 << 20);
        let mut life = Life::with(SimDisk::new(1), &sink).await;
        life.append_events(2, 10).await;
        life.append_events(20, 10).await;
        life.append_events(2, 10).await;
        sink.then(&[None, None, Some(Fate::StoreAndHang)]);
        assert!(!life.drain(&sink).await);
        let another = sink.another(second);
        let mut life = life.next(&another).await;
        another.then(&[None, Some(Fate::StoreAndHang)]);
        let _ = life.drain(&another).await;
        let last = sink.another(third);
        let mut life = life.next(&last).await;
        assert!(life.drain(&last).await, "{first} {second} {third}");
        last.assert_once(24);
        life.assert_settled(24);
    }
}

/// Holds: the rest of an entry that is stored in part counts as not routed, once the sink does not take its stream any more.
#[tokio::test(start_paused = true)]
async fn the_rest_of_a_part_is_counted() {
    let sink = Scripted::new(4, 1 << 20);
    let mut life = Life::with(SimDisk::new(1), &sink).await;
    life.append_events(10, 10).await;
    sink.then(&[None, Some(Fate::Hang)]);
    assert!(!life.drain(&sink).await);
    let stored = sink.stored().len();
    assert!(stored > 0 && stored < 10);
    let another = sink.another(4);
    let mut life = life.next(&another).await;
    life.outlet.plan.streams = vec![Stream::Channel];
    assert!(life.drain(&another).await);
    another.assert_once(stored);
    life.assert_settled(10);
    let dropped = life.outlet.tally.dropped.get("not_routed").copied();
    assert_eq!(dropped, Some(10 - stored as u64));
}

/// Holds: nothing is published under a number of the journal that a crash would change, and all is once the number is
/// durable.
#[tokio::test(start_paused = true)]
async fn a_number_that_is_not_durable_holds() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(0));
    let sink = Scripted::new(100, 1 << 20);
    let mut life = Life::with(disk, &sink).await;
    life.outlet.plan.ending = Ending::WhenEmpty;
    let held = timeout(LONG, publish_all(&mut life.outlet, &sink)).await;
    assert!(held.is_err());
    assert_eq!(life.outlet.why_not_exactly(), Some(NUMBERLESS));
    assert_eq!(*lock(&sink.recalls), 0);

    life.disk.set_capacity(None);
    let began = std::time::Instant::now();
    while life.outlet.why_not_exactly().is_some() {
        life.driver.run();
        assert!(began.elapsed() < LONG, "it is never stored");
        std::thread::yield_now();
    }
    life.append_events(3, 10).await;
    assert!(life.drain(&sink).await);
    sink.assert_once(3);
    let life = life.next(&sink).await;
    assert_eq!(life.outlet.why_not_exactly(), None);
}

/// Holds: each of the metrics moves for its cause, and for no other.
#[tokio::test(start_paused = true)]
async fn doubts_and_their_ends_are_counted() {
    let counts = |life: &Life| {
        let text = life.state.metrics.render();
        let of = |name: &str, label: &str| {
            let series = format!("rtm_bridge_exact_{name}{{app=\"main\",{label}sink=\"out\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            let value = value.unwrap_or_else(|| panic!("no {series}"));
            value.parse::<f64>().unwrap()
        };
        let result = |result: &str| of("recalls_total", &format!("result=\"{result}\","));
        let results = ["stored", "not_stored", "elsewhere"].map(result);
        let others = ["in_doubt_total", "progress_unknown_total", "fenced"];
        (others.map(|name| of(name, "")), results)
    };
    let sink = Scripted::new(100, 1 << 20);
    let mut life = Life::with(SimDisk::new(1), &sink).await;
    let mut expected: ([f64; 3], [f64; 3]) = Default::default();
    for (fate, in_doubt, recalled) in [
        (None, 0.0, [0.0, 0.0, 0.0]),
        (Some(Fate::Refuse), 0.0, [0.0, 0.0, 0.0]),
        (Some(Fate::LoseAnswer), 1.0, [1.0, 0.0, 0.0]),
        (Some(Fate::Lose), 1.0, [0.0, 1.0, 0.0]),
    ] {
        life.append_events(2, 10).await;
        sink.then(&[fate]);
        assert!(life.drain(&sink).await);
        expected.0[0] += in_doubt;
        for (all, one) in expected.1.iter_mut().zip(recalled) {
            *all += one;
        }
        assert_eq!(counts(&life), expected, "{fate:?}");
    }
    sink.assert_once(8);

    // The broker has forgotten it, and something waits.
    life.append_events(2, 10).await;
    let empty = Scripted::new(100, 1 << 20);
    let mut life = life.next(&empty).await;
    assert!(life.drain(&empty).await);
    assert_eq!(counts(&life), ([0.0, 1.0, 0.0], [0.0; 3]));

    // Another process publishes the journal. This one holds what waits, whichever client the sink has.
    life.append_events(2, 10).await;
    empty.then(&[Some(Fate::Overtake)]);
    assert!(!life.drain(&empty).await);
    assert_eq!(counts(&life), ([1.0, 1.0, 1.0], [0.0, 0.0, 1.0]));
    assert_eq!(life.outlet.why_not_exactly(), Some(FENCED));
    empty.assert_once(2);
}

/// Holds: an entry that crashes the process when it is decoded is one dead letter, once, though the process dies as soon as that
/// is stored, whether it is blamed for that death or not.
#[tokio::test(start_paused = true)]
async fn a_poisonous_entry_is_a_dead_letter_once() {
    for time in [poison::HARMLESS / 2, LONG] {
        let sink = Scripted::new(100, 1 << 20);
        let mut life = Life::begin_with(SimDisk::new(1), sink.client()).await;
        life.append_events(3, 10).await;
        while !life.outlet.is_poisoned() {
            life.be_told_nothing().await;
            life = life.crash(&sink).await;
        }
        life.publish_to_the_first_note().await;
        let sink = sink.another(100);
        let mut life = life.crash(&sink).await;
        sink.then(&[Some(Fate::StoreAndHang)]);
        assert!(!life.drain_for(time, &sink).await);
        let sink = sink.another(100);
        let mut life = life.crash(&sink).await;
        assert!(life.drain(&sink).await);
        sink.assert_once(1);
        life.assert_settled(3);
        let dead = life.outlet.tally.dead_lettered.get("poison").copied();
        assert_eq!(dead, Some(3));
    }
}

/// Holds: a record that crashes the process when it is published is a dead letter in its place, once, and its neighbours are
/// published once, though the process dies as soon as each is stored.
#[tokio::test(start_paused = true)]
async fn a_poisonous_record_is_a_dead_letter_once() {
    let mut sink = Scripted::new(100, 1 << 20);
    let mut life = Life::begin_with(SimDisk::new(1), sink.client()).await;
    life.append_events(3, 10).await;
    while !life.outlet.is_poisoned() {
        life.be_told_nothing().await;
        life = life.crash(&sink).await;
    }
    let deaths = [
        (None, Some(Fate::Hang)),
        (Some(Fate::StoreAndHang), None),
        (Some(Fate::StoreAndHang), None),
    ];
    for (first, second) in deaths {
        sink.then(&[first, second]);
        let time = poison::HARMLESS / 2;
        assert!(!life.drain_for(time, &sink).await);
        sink = sink.another(100);
        life = life.crash(&sink).await;
    }
    assert!(life.drain(&sink).await);
    sink.assert_once(3);
    life.assert_settled(3);
    let dead = life.outlet.tally.dead_lettered.get("poison").copied();
    assert_eq!(dead, Some(1));
}

/// Holds: what is noted and was not tried, since the broker is to be asked first, is blamed for no crash.
#[tokio::test(start_paused = true)]
async fn what_was_not_tried_is_not_blamed() {
    let sink = Scripted::new(100, 1 << 20);
    let mut life = Life::begin_with(SimDisk::new(1), sink.client()).await;
    life.append_events(3, 10).await;
    while !life.outlet.is_poisoned() {
        life.be_told_nothing().await;
        life = life.crash(&sink).await;
    }
    life.publish(&sink).await;
    assert!(lock(&sink.calls).is_empty() && !life.outlet.is_armed());
    let mut life = life.crash(&sink).await;
    assert!(life.drain(&sink).await);
    sink.assert_once(3);
    assert_eq!(life.outlet.tally.confirmed, 3);
}

/// Holds: a process that dies while the broker is asked has crashed of nothing in the journal, however often it does; one that
/// dies after the answer may have.
#[tokio::test(start_paused = true)]
async fn a_death_before_the_answer_blames_nobody() {
    let sink = Scripted::new(100, 1 << 20);
    let mut life = Life::begin_with(SimDisk::new(1), sink.client()).await;
    life.append_events(3, 10).await;
    for _ in 0..10 {
        life = life.crash(&sink).await;
        assert!(!life.outlet.is_poisoned());
    }
    for _ in 0..3 {
        life.be_told_nothing().await;
        life = life.crash(&sink).await;
    }
    assert!(life.outlet.is_poisoned());
}
