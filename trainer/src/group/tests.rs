//! Groups within this process, over the loopback.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::join::Join;
use super::launch::Launch;
use super::*;

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn join(rank: usize, of: usize, port: u16, recipe: &str, wait: Duration, stop: &Stop) -> Result<Group> {
    let launch = Launch { rank, of, host: "127.0.0.1".into(), port, wait };
    let same = [("version", "1".into()), ("recipe", recipe.to_string()), ("set", "scalar".into())];
    let join = Join { launch: &launch, same, go_on: "go on".into(), stop, overdue: Box::new(|_| ()) };
    join.join(&mut |_| ())
}

/// What each rank of a group makes, in their order.
pub(crate) fn each<T: Send>(of: usize, work: impl Fn(Arc<Group>) -> T + Sync) -> Vec<T> {
    let port = free_port();
    let one = |rank: usize| {
        let group = join(rank, of, port, "r", Duration::from_secs(30), &Stop::default()).expect("a group");
        let group = Arc::new(group);
        let made = work(Arc::clone(&group));
        group.finish().ok();
        made
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..of).map(|rank| scope.spawn(move || one(rank))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn all_ranks_hold_the_same_bits() {
    // More than a chunk, and none.
    for len in [0, 1, 3, CHUNK_BYTES / 4, CHUNK_BYTES / 4 + 7] {
        let own = |rank: usize, i: usize| 1.0 / (1 + i % 1000 + rank) as f32 - 0.3 * rank as f32;
        let expected: Vec<f32> = (0..len).map(|i| (own(0, i) + own(1, i)) + own(2, i)).collect();
        let found = each(3, |group| {
            let mut values: Vec<f32> = (0..len).map(|i| own(group.rank(), i)).collect();
            group.sum(&mut values).expect("a sum");
            let gathered = group.gather(&[group.rank() as f64, 0.5]).expect("all");
            let mut bytes = if group.leads() { vec![7; 3 * len] } else { vec![1] };
            group.broadcast(&mut bytes, 3 * len).expect("bytes");
            (values, gathered, bytes)
        });
        for (values, gathered, bytes) in found {
            assert!(values == expected, "{len}");
            assert_eq!((gathered, bytes), (vec![0.0, 0.5, 1.0, 0.5, 2.0, 0.5], vec![7; 3 * len]));
        }
    }
}

#[test]
fn parts_are_a_whole() {
    let found = each(3, |group| [0, 1, 2, 3, 10].map(|n| group.part(n)));
    assert_eq!(found[0], [0..0, 0..0, 0..0, 0..1, 0..3]);
    assert_eq!(found[1], [0..0, 0..0, 0..1, 1..2, 3..6]);
    assert_eq!(found[2], [0..0, 0..1, 1..2, 2..3, 6..10]);
}

#[test]
fn one_that_fails_or_goes_away_ends_all_with_its_reason() {
    let began = Instant::now();
    let failed = each(3, |group| match group.rank() {
        1 => group.end(Refusal::new("data", "b", "c", "d")).to_string(),
        _ => group.sum(&mut [0.0; 9]).expect_err("ended").to_string(),
    });
    assert_eq!(failed, ["rank 1: data: expected b, found c; d"; 3]);
    let lost = each(3, |group| match group.rank() {
        2 => {
            group.links.iter().for_each(Link::close);
            String::new()
        }
        _ => group.gather(&[1.0]).expect_err("lost").to_string(),
    });
    let expected = "rank 2: expected a process that trains on with the others, found a closed connection: it was killed or \
                    has failed; go on";
    assert_eq!(lost[..2], [expected, expected]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn bytes_that_are_no_frame_end_the_group() {
    use std::io::{Read, Write};
    // Who joined properly begins to rave: a kind that there is not, a length that there is not, an end without a reason.
    let frames = [[9, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [3, 0, 0, 0, 0, 0, 0, 0, 0]];
    let said = ["a frame of kind 9", "a frame of 4294967295 bytes", "an end without a reason"];
    for (frame, said) in frames.into_iter().zip(said) {
        let (port, stop) = (free_port(), Stop::default());
        let between = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = between.local_addr().expect("its address").port();
        let wait = Duration::from_secs(20);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| join(0, 2, port, "r", wait, &stop).err().expect("ended").to_string());
            let second = scope.spawn(|| join(1, 2, near, "r", wait, &stop).is_err());
            let (mut honest, _) = between.accept().expect("rank 1");
            let mut hello = [0; 116];
            honest.read_exact(&mut hello).expect("a hello");
            let mut raving = loop {
                if let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                    break stream;
                }
            };
            raving.write_all(&hello).and_then(|()| raving.write_all(&frame)).expect("sent");
            let first = first.join().expect("no panic");
            assert!(first.starts_with("rank 1: expected a process that trains on") && first.contains(said), "{first}");
            drop(honest);
            stop.ask();
            assert!(second.join().expect("no panic"));
        });
    }
}

#[test]
fn a_main_thread_that_does_not_look_up_is_ended() {
    let (port, stop) = (free_port(), Stop::default());
    let (send, ends) = std::sync::mpsc::channel();
    let launch = |rank| Launch { rank, of: 2, host: "localhost".into(), port, wait: Duration::from_secs(20) };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (launch, same) = (launch(1), [(""); 3].map(|what| (what, String::new())));
            let join = Join { launch: &launch, same, go_on: String::new(), stop: &stop, overdue: Box::new(|_| ()) };
            drop(join.join(&mut |_| ()).expect("a group"));
        });
        let (launch, same) = (launch(0), [(""); 3].map(|what| (what, String::new())));
        let overdue = move |why: &Refusal| send.send(why.clone()).expect("somebody waits");
        let join = Join { launch: &launch, same, go_on: "go on".into(), stop: &stop, overdue: Box::new(overdue) };
        let _group = join.join(&mut |_| ()).expect("a group");
        let began = Instant::now();
        let why = ends.recv_timeout(Duration::from_secs(30)).expect("ended");
        assert!(began.elapsed() > Duration::from_secs(5), "it had time to notice by itself");
        assert_eq!((why.at.as_str(), why.exit, why.action.as_str()), ("rank 1", Exit::Lacking, "go on"));
        other.join().expect("no panic");
    });
}

#[test]
fn ranks_that_speak_of_different_things_end() {
    let found = each(2, |group| match group.rank() {
        0 => group.sum(&mut [0.0; 4]).map(drop),
        _ => group.gather(&[0.0; 3]).map(drop),
    });
    let said = found[0].as_ref().expect_err("another length").to_string();
    assert!(said.starts_with("rank 1: expected 16 bytes of turn 2, found 24 bytes of turn 2;"), "{said}");
    assert!(found[1].is_err());
    let found = each(2, |group| {
        let mut bytes = vec![0; if group.leads() { 101 } else { 0 }];
        group.broadcast(&mut bytes, 100).and_then(|()| group.gather(&[])).map(drop)
    });
    assert!(found[1].as_ref().is_err_and(|why| why.to_string().contains("at most 100 bytes, found 101 bytes")));
}

#[test]
fn those_that_do_not_fit_are_refused_and_strangers_sent_away() {
    use std::io::{Read, Write};
    let (port, stop) = (free_port(), Stop::default());
    let wait = Duration::from_secs(20);
    let [first, second] = std::thread::scope(|scope| {
        let first = scope.spawn(|| join(0, 2, port, "mine", wait, &stop).err());
        let connect = || loop {
            if let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                return stream;
            }
        };
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"kd-"] {
            let mut stream = connect();
            stream.write_all(bytes).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            assert_eq!(stream.read(&mut [0; 9]).unwrap_or(0), 0, "nothing is said to a stranger");
        }
        let second = scope.spawn(|| join(1, 2, port, "other", wait, &stop).err());
        [first, second].map(|thread| thread.join().expect("no panic").expect("refused").to_string())
    });
    assert!(first.starts_with("rank 1: recipe: expected that of rank 0 ("), "{first}");
    assert!(second.starts_with("recipe: expected that of rank 0 ("), "{second}");
    assert!(second.contains("found this one's (") && first.contains("found its own ("), "{first} {second}");

    let port = free_port();
    let late = |rank| join(rank, 3, port, "r", Duration::from_secs(1), &stop).err().expect("late").to_string();
    let expected = format!("127.0.0.1:{port}: expected 3 processes within 1 s, found none of rank 1, 2; ");
    let said = late(0);
    assert!(said.starts_with(&expected), "{said}");
    let said = late(1);
    assert!(said.starts_with(&format!("127.0.0.1:{port}: expected rank 0 to listen within 1 s, found ")), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let refusal = join(0, 2, port, "r", wait, &stop).err().expect("in use");
    assert_eq!(refusal.exit, Exit::Lacking);
    assert!(refusal.to_string().contains("choose another MASTER_PORT"), "{refusal}");
}
