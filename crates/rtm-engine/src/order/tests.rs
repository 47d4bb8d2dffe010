use std::collections::BTreeMap;

use proptest::prelude::*;
use rtm_journal::{Journal, Lane, LaneName, Options, Position, ReaderName};
use rtm_source::{Region, Stream};

use super::*;
use rtm_record::entry::Tags;

/// Two rings at a far end that answers when it likes, and a journal that is read meanwhile.
struct World {
    dir: tempfile::TempDir,
    journal: Journal,
    lane: Lane,
    reader: Option<Reader>,
    requests: Arc<InFlightRequests>,
    ordered: OrderedReader,
    rings: [Ring; 2],
    /// The next page of each ring.
    next: [i64; 2],
    in_flight: Vec<Sent>,
    /// What was stored, by position, and what came out and was committed.
    stored: BTreeMap<u64, (usize, i64)>,
    published: Vec<u64>,
    body: Vec<u8>,
}

struct Sent {
    ring: usize,
    request: Request,
    /// The page that the far end has given out, unless it had none.
    answer: Option<Option<i64>>,
}

const MOST: usize = 3;

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let region = Arc::new(Region::builtin("eu-west-1").unwrap());
        let rings = Stream::ALL.map(|stream| Ring {
            region: Arc::clone(&region),
            stream,
        });
        let (journal, lane, reader) = open(&dir);
        let requests = Arc::<InFlightRequests>::default();
        World {
            ordered: OrderedReader::new(Arc::clone(&requests), journal.epoch()),
            dir,
            journal,
            lane,
            reader: Some(reader),
            requests,
            rings,
            next: [1_000, 1_000],
            in_flight: Vec::new(),
            stored: BTreeMap::new(),
            published: Vec::new(),
            body: b"{}".to_vec(),
        }
    }

    fn send(&mut self, ring: usize) {
        let busy = self.in_flight.iter().filter(|other| other.ring == ring);
        if busy.count() < MOST {
            self.in_flight.push(Sent {
                ring,
                request: self.requests.begin(&self.rings[ring]),
                answer: None,
            });
        }
    }

    fn answer(&mut self, index: usize, empty: bool) {
        let waiting: Vec<usize> = (0..self.in_flight.len())
            .filter(|index| self.in_flight[*index].answer.is_none())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let request = &mut self.in_flight[waiting[index % waiting.len()]];
        let page = (!empty).then_some(self.next[request.ring]);
        self.next[request.ring] += 10;
        request.answer = Some(page);
    }

    async fn end(&mut self, index: usize) {
        let answered: Vec<usize> = (0..self.in_flight.len())
            .filter(|index| self.in_flight[*index].answer.is_some())
            .collect();
        if answered.is_empty() {
            return;
        }
        let Sent {
            ring,
            request,
            answer,
        } = self.in_flight.remove(answered[index % answered.len()]);
        if let Some(Some(ms)) = answer {
            let tags = Tags {
                app: "main".into(),
                app_id: "0a1b".into(),
                region: self.rings[ring].region.name().into(),
                stream: self.rings[ring].stream.as_str().into(),
                fetched_at: 0,
                status: 200,
                request_id: None,
                complete: true,
            };
            let overlap = request.overlap(Some(ms));
            let entry = entry::with_tags(&tags, overlap.as_ref(), &self.body);
            let room = self.lane.reserve(entry.len()).await;
            let position = room.append(entry, 1).await.unwrap();
            self.stored.insert(position.0, (ring, ms));
        }
        drop(request);
    }

    /// Publishes a group if there is one; `dies` before the cursor has moved.
    fn publish(&mut self, dies: bool) -> bool {
        let reader = self.reader.as_mut().unwrap();
        let Some(group) = self.ordered.try_next(reader).unwrap() else {
            return false;
        };
        let positions: Vec<u64> = (group.into_iter())
            .map(|entry| entry.unwrap().position.0)
            .collect();
        if dies {
            reader.rewind();
            self.ordered.clear();
            return true;
        }
        reader.commit(Position(positions.iter().copied().max().unwrap()));
        self.published.extend(positions);
        true
    }

    /// The process dies with its requests, and another begins.
    async fn restart(&mut self) {
        self.in_flight.clear();
        self.reader = None;
        self.journal.clone().close().await.unwrap();
        (self.journal, self.lane, self.reader) = {
            let (journal, lane, reader) = open(&self.dir);
            (journal, lane, Some(reader))
        };
        self.requests = Arc::default();
        self.ordered = OrderedReader::new(Arc::clone(&self.requests), self.journal.epoch());
    }

    /// Everything came out once, and each ring's pages in its order.
    fn check(&self) {
        let mut once = self.published.clone();
        once.sort_unstable();
        assert_eq!(once, self.stored.keys().copied().collect::<Vec<_>>());
        for ring in 0..2 {
            let pages: Vec<i64> = (self.published.iter())
                .map(|position| self.stored[position])
                .filter(|(of, _)| *of == ring)
                .map(|(_, ms)| ms)
                .collect();
            assert!(pages.is_sorted(), "ring {ring}: {pages:?}");
        }
    }
}

fn open(dir: &tempfile::TempDir) -> (Journal, Lane, Reader) {
    let journal = Journal::open(dir.path(), Options::default()).unwrap();
    let lane = journal.lane(&LaneName::try_from("lane").unwrap()).unwrap();
    let reader = lane.reader(&ReaderName::try_from("sink").unwrap()).unwrap();
    (journal, lane, reader)
}

fn run(steps: &[(u8, usize)]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        for &(step, index) in steps {
            match step {
                0..=29 => world.send(index % 2),
                30..=59 => world.answer(index, step < 34),
                60..=84 => world.end(index).await,
                85..=97 => drop(world.publish(step == 85)),
                _ => world.restart().await,
            }
        }
        for index in 0..world.in_flight.len() {
            world.answer(index, false);
        }
        while !world.in_flight.is_empty() {
            world.end(0).await;
            while world.publish(false) {}
        }
        while world.publish(false) {}
        world.check();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Holds: whatever the order in which requests end, and whenever the process dies, pages come out in their ring's order,
    /// each once, and all of them as soon as nothing is in flight.
    #[test]
    fn pages_come_out_in_their_rings_order(
        steps in prop::collection::vec((0u8..100, any::<prop::sample::Index>()), 0..80),
    ) {
        let steps: Vec<(u8, usize)> = steps
            .into_iter()
            .map(|(step, index)| (step, index.index(1 << 16)))
            .collect();
        run(&steps);
    }
}

/// Holds: a page waits for one that was in flight beside it, and for nothing else; who waits is woken.
#[tokio::test]
async fn a_page_waits_for_what_was_in_flight_beside_it() {
    let mut world = World::new();
    world.send(0);
    world.send(0);
    // The later request is answered first, and its response comes last.
    world.answer(1, false);
    world.answer(0, false);
    world.end(0).await;
    assert!(!world.publish(false), "an older page is in flight");
    world.send(1);
    world.answer(0, false);
    let other = world.in_flight.len() - 1;
    world.end(other).await;
    let requests = Arc::clone(&world.requests);
    let woken = requests.ended.notified();
    world.end(0).await;
    woken.await;
    while world.publish(false) {}
    assert_eq!(world.published.len(), 3);
    world.check();
}

/// Holds: a ring is the same one by its name, whatever its URL, and others are not.
#[test]
fn a_ring_keeps_its_requests_when_its_url_changes() {
    let ring = |url: &str, stream| Ring {
        region: Arc::new(Region::new("eu-west-1", url, false).unwrap()),
        stream,
    };
    let [old, new] = ["https://old.example", "https://new.example"];
    let requests = Arc::<InFlightRequests>::default();
    let first = requests.begin(&ring(old, Stream::User));
    let second = requests.begin(&ring(new, Stream::User));
    let other = requests.begin(&ring(new, Stream::Channel));
    let in_flight = [&first, &second, &other].map(Request::in_flight);
    assert_eq!(in_flight, [1, 2, 1]);
    assert_eq!(other.overlap(Some(5)), None);
    let overlap = Overlap {
        number: 1,
        oldest: 2,
        newest: 2,
        first_ms: 5,
    };
    assert_eq!(first.overlap(Some(5)), Some(overlap));
    drop(second);
    let overlap = Overlap {
        oldest: u64::MAX,
        ..overlap
    };
    assert_eq!(first.overlap(Some(5)), Some(overlap));
}

/// A request that hangs, its page given out by the far end before all others, and so many others beside it, all stored.
async fn hanging(world: &mut World, others: usize) {
    world.send(0);
    world.answer(0, false);
    for _ in 0..others {
        world.send(0);
        world.answer(0, false);
        world.end(1).await;
    }
}

/// Holds: a request may hang until its deadline while others bring ten pages a second, and its page still comes first; and
/// so it does where all of that is published by the next process.
#[tokio::test]
async fn a_page_that_comes_after_hundreds_still_comes_first() {
    for restarts in [false, true] {
        let mut world = World::new();
        hanging(&mut world, 350).await;
        if !restarts {
            assert!(!world.publish(false), "an older page is in flight");
        }
        world.end(0).await;
        if restarts {
            world.restart().await;
        }
        while world.publish(false) {}
        world.check();
        assert_eq!(world.ordered.take_late(), 0);
    }
}

/// Holds: what waits for a request that hangs is bounded in memory, and what comes behind newer pages for that is counted.
#[tokio::test]
async fn what_is_forced_out_of_order_is_counted() {
    let mut world = World::new();
    world.body = vec![b' '; 1 << 20];
    hanging(&mut world, 70).await;
    let mut groups = 0;
    while world.publish(false) {
        groups += 1;
    }
    assert!((5..10).contains(&groups), "{groups}");
    assert_eq!(world.ordered.take_late(), 0);
    world.end(0).await;
    while world.publish(false) {}
    assert_eq!(world.published.len(), 71);
    assert_eq!(world.ordered.take_late(), 1);
}

/// Holds: what was stored long after a page is not read to find one that was in flight beside it.
#[tokio::test]
async fn no_more_is_read_than_may_belong_before() {
    let now = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::clone(&now);
    let options = Options {
        clock: Some(Arc::new(move || {
            let seconds = clock.load(std::sync::atomic::Ordering::Relaxed);
            std::time::UNIX_EPOCH + Duration::from_secs(seconds)
        })),
        ..Options::default()
    };
    let mut world = World::new();
    world.reader = None;
    world.journal = Journal::open(dir.path(), options).unwrap();
    world.lane = world
        .journal
        .lane(&LaneName::try_from("lane").unwrap())
        .unwrap();
    let reader = world.lane.reader(&ReaderName::try_from("sink").unwrap());
    world.reader = Some(reader.unwrap());
    // One that brings nothing, beside one that does; then the other ring goes on alone.
    world.send(0);
    world.send(0);
    world.answer(0, false);
    world.end(0).await;
    for _ in 0..100 {
        now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        world.send(1);
        let other = world.in_flight.len() - 1;
        world.answer(other, false);
        world.end(0).await;
    }
    world.in_flight.clear();
    world.ordered.epoch = Epoch(0);
    assert!(world.publish(false));
    assert_eq!(world.published.len(), 1);
    let ahead = world.ordered.read.len();
    assert!((35..=37).contains(&ahead), "{ahead}");
}
