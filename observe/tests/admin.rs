//! The admin endpoint over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longhaul_observe::{
    admin::{self, Admin, Endpoints, MAX_CONNECTIONS, Readiness},
    metrics::{Flow, Metrics, Side},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

async fn start(ready: Arc<AtomicBool>) -> Admin {
    let mut metrics = Metrics::new(Side::Importer);
    Flow::new(&mut metrics);
    let endpoints = Endpoints {
        metrics: Arc::new(metrics),
        readiness: Arc::new(move || {
            Readiness::ready().and(ready.load(Ordering::Relaxed), "lane 2 waits for a transaction")
        }),
        status: Arc::new(|| serde_json::json!({ "links": ["fra-to-aws"] })),
    };
    admin::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap().serve(endpoints)
}

async fn ask(admin: &Admin, request: &str) -> String {
    let mut stream = TcpStream::connect(admin.local_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn get(admin: &Admin, path: &str) -> (u16, String) {
    let answer = ask(admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn each_path_gives_its_answer() {
    let ready = Arc::new(AtomicBool::new(false));
    let admin = start(Arc::clone(&ready)).await;
    assert_eq!(get(&admin, "/healthz").await, (200, "ok\n".into()));
    let (code, metrics) = get(&admin, "/metrics").await;
    assert!(code == 200 && metrics.contains("longhaul_importer_audit_healthy 1"), "{metrics}");
    assert_eq!(
        get(&admin, "/readyz").await,
        (503, "{\"missing\":[\"lane 2 waits for a transaction\"],\"ready\":false}\n".into())
    );
    ready.store(true, Ordering::Relaxed);
    assert_eq!(get(&admin, "/readyz").await, (200, "{\"missing\":[],\"ready\":true}\n".into()));
    assert_eq!(get(&admin, "/api/status").await, (200, "{\"links\":[\"fra-to-aws\"]}\n".into()));
    assert_eq!(get(&admin, "/elsewhere").await.0, 404);
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let admin = start(Arc::default()).await;
    let refused = ask(&admin, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"), "{refused}");
    let head = ask(&admin, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    let huge = ask(&admin, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000))).await;
    assert!(!huge.starts_with("HTTP/1.1 2"), "{huge}");
}

#[tokio::test]
async fn silent_clients_cannot_keep_a_scraper_out_for_ever() {
    let admin = start(Arc::default()).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(admin.local_addr()).await.unwrap());
    }
    // It waits until the header timeout has freed a place.
    assert_eq!(get(&admin, "/healthz").await.0, 200);
    drop(silent);
}

#[tokio::test]
async fn a_taken_address_is_named_in_the_error() {
    let admin = start(Arc::default()).await;
    let error = admin::bind(admin.local_addr()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {}", admin.local_addr())), "{error}");
    assert!(error.contains("[admin] listen"), "{error}");
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections_and_frees_the_address() {
    let admin = start(Arc::default()).await;
    let address = admin.local_addr();
    let mut idle = TcpStream::connect(address).await.unwrap();
    get(&admin, "/healthz").await;
    timeout(PATIENCE, admin.shutdown()).await.unwrap();
    let mut rest = Vec::new();
    // Closed or reset; in any case not left open.
    let _ = timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
}

const PATIENCE: Duration = Duration::from_secs(30);
