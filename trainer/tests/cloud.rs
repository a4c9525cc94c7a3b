//! Replicas that meet in a bucket: of a server here that speaks as much of S3 and of WebDAV as they need. `cargo test -p kd-trainer
//! --features cloud --test cloud` runs it.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use support::{Scratch, TINY, json};

/// What is stored, by path.
type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

const MODIFIED: &str = "Sat, 28 Nov 2026 12:00:00 GMT";

/// Starts a server; its port and what it holds.
fn serve() -> (u16, Objects) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, objects) = (listener.local_addr().unwrap().port(), Objects::default());
    let held = Arc::clone(&objects);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let held = Arc::clone(&held);
            std::thread::spawn(move || answer(stream.unwrap(), &held));
        }
    });
    (port, objects)
}

/// Answers the one request of a connection.
fn answer(mut stream: TcpStream, objects: &Objects) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_string())
    };
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_signed = header("authorization").is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 Credential=id/"));
    let (status, body) = if path.starts_with("/bucket") && !is_signed {
        (403, Vec::new())
    } else {
        outcome(method, path, query, body, &mut objects.lock().unwrap())
    };
    let head = format!(
        "HTTP/1.1 {status} so\r\nContent-Length: {}\r\nETag: \"e\"\r\nLast-Modified: {MODIFIED}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
}

fn outcome(
    method: &str,
    path: &str,
    query: &str,
    body: Vec<u8>,
    objects: &mut BTreeMap<String, Vec<u8>>,
) -> (u16, Vec<u8>) {
    let text = |text: String| (200, text.into_bytes());
    match method {
        "PUT" => {
            objects.insert(path.into(), body);
            (201, Vec::new())
        }
        "GET" if query.contains("list-type=2") => {
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
            let under = format!("{path}/{}", prefix.replace("%2F", "/"));
            let one = |(name, bytes): (&String, &Vec<u8>)| {
                let (key, size) = (name.strip_prefix("/bucket/").unwrap(), bytes.len());
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-28T12:00:00Z</LastModified><ETag>\"e\"</ETag>\
                     <Size>{size}</Size></Contents>"
                )
            };
            let all: String = objects.iter().filter(|(name, _)| name.starts_with(&under)).map(one).collect();
            text(format!("<ListBucketResult><IsTruncated>false</IsTruncated>{all}</ListBucketResult>"))
        }
        "GET" => objects.get(path).map_or((404, Vec::new()), |bytes| (200, bytes.clone())),
        "POST" => {
            let body = String::from_utf8(body).unwrap();
            for key in body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                objects.remove(&format!("{path}/{key}"));
            }
            text("<DeleteResult></DeleteResult>".into())
        }
        "DELETE" => (if objects.remove(path).is_some() { 204 } else { 404 }, Vec::new()),
        "PROPFIND" => {
            let one = |name: &str, what: &str| {
                format!(
                    "<D:response><D:href>{name}</D:href><D:propstat><D:prop>{what}<D:getlastmodified>{MODIFIED}\
                     </D:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
                )
            };
            let under = objects.iter().filter(|(name, _)| name.starts_with(&format!("{path}/")));
            let file = |(name, bytes): (&String, &Vec<u8>)| {
                let size = format!("<D:getcontentlength>{}</D:getcontentlength><D:resourcetype/>", bytes.len());
                one(name, &size)
            };
            let all: String = under.map(file).collect();
            let folder = one(path, "<D:resourcetype><D:collection/></D:resourcetype>");
            match all.is_empty() {
                true => (404, Vec::new()),
                false => (207, format!("<D:multistatus xmlns:D=\"DAV:\">{folder}{all}</D:multistatus>").into_bytes()),
            }
        }
        _ => (405, Vec::new()),
    }
}

/// One replica after the other, so that it is known who hears whom.
#[test]
fn replicas_meet_in_a_bucket_of_s3_and_in_a_folder_of_webdav() {
    let (port, objects) = serve();
    let scratch = Scratch::new("cloud");
    let (head, tail) = TINY.split_once("[teacher]").unwrap();
    let tail = tail[tail.find("[student]").unwrap()..].split_once("[distill]").unwrap().0;
    let recipe = scratch.recipe(&format!("{head}{tail}[distill]\nscheme = \"dml\"\n[compare]\nbaseline = false\n"));
    let server = format!("http://127.0.0.1:{port}");
    let s3 = [
        ("AWS_ENDPOINT", &*server),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_REGION", "here"),
    ];
    let webdav = format!("{server}/dav/run");
    for (name, address, keys) in [("s3", "s3://bucket/run", &s3[..]), ("dav", &webdav, &[("ALLOW_HTTP", "true")])] {
        for replica in 1..=2 {
            let output = scratch.path(&format!("{name}-{replica}"));
            let mut command = Command::new(support::PROGRAM);
            command.arg("run").arg(&recipe).arg("--output").arg(&output).envs(keys.iter().copied());
            let done = command.args(["--replica", &format!("{replica}/2"), "--exchange", address]).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.code() == Some(0) && !said.contains("exchange:"), "{name}: {said}");
            let results = json(&output.join("results.json"));
            let heard = results["arms"][0]["seeds"][0]["replicas"].is_object();
            assert_eq!(heard, replica == 2, "{name}: replica {replica}");
        }
        let folder = if name == "s3" { "/bucket/run" } else { "/dav/run" };
        for replica in 1..=2 {
            let home = format!("{folder}/seed-1/replica-{replica}/");
            let left = objects.lock().unwrap().keys().filter(|name| name.starts_with(&home)).count();
            assert_eq!(left, 3, "{name}: of replica {replica}");
        }
    }
}
