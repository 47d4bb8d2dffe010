use rtm_journal::sim::SimDisk;
use rtm_journal::{Driver, Journal, LaneName, Options};

use super::*;

const WINDOW: Duration = Duration::from_secs(20);

/// A lane, its sink's own cursor, and what is held of it.
struct Rig {
    driver: Driver,
    lane: Lane,
    cursor: Reader,
    hold: Hold,
    ground: watch::Sender<Ground>,
    mark: Option<Mark>,
}

impl Rig {
    fn begin(disk: Arc<SimDisk>) -> Rig {
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let (journal, driver) = Journal::open_driven(disk, options).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let cursor = lanes::reader(&lane, "nats").unwrap();
        let (at, epoch) = (cursor.committed(), journal.epoch());
        let mut hold = Hold::open(&lane, "nats", WINDOW, at, epoch).unwrap();
        let ground = watch::Sender::new(Ground::default());
        hold.watch(|| Some(ground.subscribe()));
        Rig {
            driver,
            lane,
            cursor,
            hold,
            ground,
            mark: None,
        }
    }

    /// An entry is stored and confirmed, as the record of this number.
    async fn confirm(&mut self, number: u64) {
        let append = self.lane.reserve(100).await.append("entry", 10);
        self.driver.run_during(append).await.unwrap();
        let at = self.cursor.next().await.unwrap().position;
        self.cursor.commit(at);
        self.ground.send_if_modified(|ground| {
            let since = *ground;
            ground.acknowledge(since, number, number);
            false
        });
        self.mark = self.hold.mark(self.mark, None);
        self.hold.confirmed(at, self.mark);
    }

    fn look(&self, store: u64, last: u64) -> Ground {
        self.ground.send_modify(|ground| {
            let since = *ground;
            ground.look(since, store, last);
        });
        *self.ground.borrow()
    }

    fn held(&self) -> u64 {
        self.hold.events(self.cursor.pending().count)
    }
}

/// Holds: what is confirmed is held for the window by the time in which something was confirmed, and let go of then; not
/// so what may have to be published again.
#[tokio::test(start_paused = true)]
async fn what_is_confirmed_is_held_for_the_window() {
    let mut rig = Rig::begin(SimDisk::new(1));
    rig.look(7, 0);
    for number in 1..=60 {
        rig.confirm(number).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let held = rig.held();
    assert!((200..=220).contains(&held), "{held} events of 10 a second");
    // An outage: the server syncs nothing, or nobody knows.
    tokio::time::advance(Duration::from_hours(1)).await;
    rig.confirm(61).await;
    let held = rig.held();
    assert!((100..=130).contains(&held), "{held} after an outage");
    // It has gone back: what is held stays.
    rig.look(7, 50);
    assert!(rig.hold.is_moved(rig.mark));
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        rig.confirm(51).await;
    }
    assert!(rig.held() >= held + 600);
}

/// Holds: a store that goes back is noticed at once while the bridge runs, and after its restart by what is durable; a
/// store of which nothing is missing, and a new sink of the same process, are not taken for one.
#[tokio::test(start_paused = true)]
async fn what_has_gone_back_is_noticed() {
    let mut rig = Rig::begin(SimDisk::new(2));
    let first = rig.look(7, 100);
    assert!(!rig.hold.is_moved(None) && !rig.hold.look(first, None));
    rig.confirm(101).await;
    rig.confirm(102).await;
    let mark = rig.mark.unwrap();
    assert_eq!((mark.store, mark.last, mark.is_back), (7, 102, false));
    let back = rig.look(7, 101);
    assert!(rig.hold.is_moved(rig.mark) && rig.hold.look(back, rig.mark));
    assert!(!rig.hold.is_moved(rig.mark), "it is looked at");

    let began = |store, kept| Ground {
        store,
        kept,
        last: 0,
        back: 1,
    };
    let of_before = Mark {
        process: mark.process ^ 1,
        ..mark
    };
    for (ground, mark, expected) in [
        (began(7, 102), of_before, false),
        (began(7, 900), of_before, false),
        (began(7, 101), of_before, true),
        (began(8, 900), of_before, true),
        // Nobody tells.
        (began(0, 0), of_before, false),
        (began(7, 101), mark, false),
        (
            began(7, 900),
            Mark {
                is_back: true,
                ..mark
            },
            true,
        ),
    ] {
        rig.hold.seen = 0;
        assert_eq!(
            rig.hold.look(ground, Some(mark)),
            expected,
            "{ground:?} {mark:?}"
        );
    }
}

/// Holds: what polling needs the room of is given up, and counts as what may be lost.
#[tokio::test(start_paused = true)]
async fn what_is_held_yields() {
    let mut rig = Rig::begin(SimDisk::new(3));
    rig.look(7, 0);
    for number in 1..=10 {
        rig.confirm(number).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!((rig.held(), rig.hold.lost(*rig.ground.borrow())), (100, 0));
    // More than is plenty.
    drop(rig.lane.try_reserve(rtm_journal::MAX_ENTRY_BYTES));
    let mut all = Vec::new();
    while rig.held() > 0 && all.len() < 1_000 {
        all.push(rig.lane.try_reserve(rtm_journal::MAX_ENTRY_BYTES));
    }
    assert!(all.iter().all(Option::is_some), "nobody waits for it");
    assert_eq!(rig.held(), 0);
    let back = rig.look(7, 4);
    assert_eq!(rig.hold.lost(back), 6);
    // A new process knows it too.
    let cursor = rig.cursor.committed();
    rig.hold.begin(cursor, rig.mark);
    assert_eq!(rig.hold.lost(back), 6);
}
