/* The load of the served workloads: one thread, epoll, every answer compared byte by byte.
 *
 *     load echo PORT BYTES        a trip sends BYTES bytes and gets the same bytes back
 *     load udp PORT BYTES         the same by packets; none may be lost
 *     load http PORT BYTES        a trip is GET /x on a kept connection; the body is BYTES times 'x'
 *     load json PORT BYTES        the same; the body is {"message":"xx...x"}, BYTES in all
 *     load serve                  the other side of echo: prints its port; what a trip takes of the kernel, and nothing else
 *
 * Commands come on stdin, one a line, each answered by one line of JSON on stdout:
 *
 *     open K       open K more connections, with one trip on each; few at once, for short backlogs
 *     trips N A    N trips, always one under way on each of the first A connections
 *     check        one trip on every connection
 *     churn N A    http and json: N connections, A at a time, each with one request that says close, and read to its end
 *
 * Anything wrong (other bytes, a connection that ends, no answer for 30 s) ends it with code 1 and a line on stderr; in trips and
 * churn over http, a connection that ends too early or is refused is counted, and another takes its place.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { OPENING = 4, EVENTS = 256, HEAD = 4096, SILENCE_MS = 30000 };
enum { ERRORS_MOST = 1000 };
static const char REQUEST[] = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char LAST_REQUEST[] = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

struct connection {
    int fd;
    uint64_t begun, trips;
    size_t got;  /* bytes of the answer so far */
    size_t want; /* bytes of the whole answer; 0: its head is not complete */
    char *answer;
};

static struct connection *connections;
static int count, room, poller, http;
static int type = SOCK_STREAM;
static int churning;          /* connections end with their answer */
static unsigned long errors; /* of the trips measured */
static size_t bytes;
static struct sockaddr_in server;
static char *pattern; /* what is sent (echo) or the body (http) */
static uint64_t *latency; /* of the trips measured; NULL while nothing is */
static uint64_t done, wanted;

static void fail(const char *format, ...) {
    va_list more;
    va_start(more, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, more);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t time_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now(void) {
    return time_of(CLOCK_MONOTONIC);
}

/* Each trip sends other bytes: the first 16 say which connection and which trip. */
static void mark(struct connection *c) {
    uint64_t words[2] = {(uint64_t)(c - connections) * 0x9e3779b97f4a7c15u, c->trips};
    memcpy(pattern, words, sizeof words);
}

static void begin(struct connection *c) {
    const char *text = REQUEST;
    size_t length = sizeof REQUEST - 1;
    c->got = c->want = 0;
    if (churning) {
        text = LAST_REQUEST;
        length = sizeof LAST_REQUEST - 1;
    }
    if (!http) {
        mark(c);
        text = pattern;
        length = c->want = bytes;
    }
    if (!churning) c->begun = now();
    ssize_t sent = send(c->fd, text, length, MSG_NOSIGNAL);
    if (sent < 0 && latency && http) return; /* the event that follows counts it */
    if (sent != (ssize_t)length) fail("connection %ld: sent %zd of %zu bytes: %s", (long)(c - connections), sent, length, strerror(errno));
}

static void read_head(struct connection *c) {
    c->answer[c->got] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) {
        if (c->got >= HEAD) fail("an answer without an end of its head");
        return;
    }
    char *length = strcasestr(c->answer, "\r\nContent-Length:");
    if (strncmp(c->answer, "HTTP/1.1 200", 12) || !length || length > end) fail("not a 200 with a length: %.80s", c->answer);
    size_t body = strtoul(length + 17, NULL, 10);
    if (body != bytes) fail("a body of %zu bytes instead of %zu", body, bytes);
    c->want = (size_t)(end + 4 - c->answer) + body;
}

/* Reads what there is; 1 when the answer is complete and right, -1 when the connection has ended without it. */
static int advance(struct connection *c) {
    size_t most = HEAD + bytes - c->got;
    ssize_t n = recv(c->fd, c->answer + c->got, most, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n == 0 && churning && c->want && c->got == c->want) {
        if (memcmp(c->answer + c->want - bytes, pattern, bytes)) fail("other bytes");
        return 1;
    }
    if (n <= 0 && latency && http) return -1;
    if (n <= 0) fail("connection %ld ended in trip %llu: %s", (long)(c - connections), (unsigned long long)c->trips, n ? strerror(errno) : "end of file");
    c->got += (size_t)n;
    if (!c->want) read_head(c);
    if (!c->want || c->got < c->want || (churning && c->got == c->want)) return 0;
    if (c->got > c->want) fail("connection %ld: %zu bytes too many", (long)(c - connections), c->got - c->want);
    if (!http) mark(c);
    if (memcmp(c->answer + c->want - bytes, pattern, bytes)) fail("connection %ld: other bytes in trip %llu", (long)(c - connections), (unsigned long long)c->trips);
    c->trips++;
    return 1;
}

/* Connects the socket of `c`, and begins; over the loopback that does not wait unless the server's queue is full. */
static void connect_to(struct connection *c) {
    static const int on = 1;
    c->begun = now();
    c->fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket %ld: %s", (long)(c - connections), strerror(errno));
    while (connect(c->fd, (struct sockaddr *)&server, sizeof server)) {
        if (!latency || ++errors > ERRORS_MOST) fail("connect %ld: %s", (long)(c - connections), strerror(errno));
    }
    if (!churning) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u32 = (uint32_t)(c - connections)};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    begin(c);
}

static void connect_next(void) {
    struct connection *c = &connections[count++];
    memset(c, 0, sizeof *c);
    c->answer = malloc(HEAD + bytes + 1);
    if (!c->answer) fail("no memory");
    connect_to(c);
}

/* Ends with a reset, which is cheap, and leaves nothing in TIME_WAIT. */
static void end(struct connection *c) {
    static const struct linger none = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(c->fd); /* which the poller hears of */
}

static void connect_again(struct connection *c) {
    end(c);
    connect_to(c);
}

/* Runs until `wanted` trips are done; `again` gives each connection that is done its next one. */
static void turn(void (*again)(struct connection *)) {
    struct epoll_event events[EVENTS];
    while (done < wanted) {
        int n = epoll_wait(poller, events, EVENTS, SILENCE_MS);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) fail("no answer for %d s: %llu of %llu trips done", SILENCE_MS / 1000, (unsigned long long)done, (unsigned long long)wanted);
        for (int i = 0; i < n; i++) {
            struct connection *c = &connections[events[i].data.u32];
            int how = advance(c);
            if (!how && churning && events[i].events & EPOLLRDHUP) how = advance(c); /* its end came along */
            if (!how) continue;
            if (how < 0) {
                if (++errors > ERRORS_MOST) fail("more than %d connections ended too early", ERRORS_MOST);
                connect_again(c);
                continue;
            }
            if (latency) latency[done] = now() - c->begun;
            done++;
            again(c);
        }
    }
}

static int most; /* connections wanted, while they are opened */
static uint64_t given; /* trips begun */

static void open_one(struct connection *c) {
    (void)c;
    if (count < most) connect_next();
}

static void trip_again(struct connection *c) {
    if (given < wanted) {
        given++;
        begin(c);
    }
}

static void churn_again(struct connection *c) {
    if (given < wanted) {
        given++;
        connect_again(c);
    } else {
        end(c);
    }
}

static int next_check;

static void check_next(struct connection *c) {
    (void)c;
    if (next_check < count) begin(&connections[next_check++]);
}

static void open_more(int more) {
    most = count + more;
    if (most > room) {
        room = most;
        connections = realloc(connections, (size_t)room * sizeof *connections);
        if (!connections) fail("no memory");
    }
    done = 0;
    wanted = (uint64_t)more;
    for (int i = 0; i < OPENING && count < most; i++) connect_next();
    turn(open_one);
    printf("{\"connections\": %d}\n", count);
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Trips until `n` are done, with `start` to begin on each of the first connections and `again` to go on. */
static void measure(uint64_t n, int active, void (*start)(struct connection *), void (*again)(struct connection *)) {
    latency = malloc(n * sizeof *latency);
    if (!latency) fail("no memory");
    done = errors = 0;
    wanted = n;
    given = (uint64_t)active;
    uint64_t began = now(), spent = time_of(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < active; i++) start(&connections[i]);
    turn(again);
    uint64_t elapsed = now() - began;
    spent = time_of(CLOCK_PROCESS_CPUTIME_ID) - spent;
    qsort(latency, n, sizeof *latency, by_size);
    printf("{\"trips\": %llu, \"ns\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, \"max_ns\": %llu, \"cpu_ns\": %llu, \"errors\": %lu}\n",
           (unsigned long long)n, (unsigned long long)elapsed, (unsigned long long)latency[n / 2],
           (unsigned long long)latency[n * 99 / 100], (unsigned long long)latency[n * 999 / 1000],
           (unsigned long long)latency[n - 1], (unsigned long long)spent, errors);
    free(latency);
    latency = NULL;
}

static void trips(uint64_t n, int active) {
    if (active < 1 || active > count || n < (uint64_t)active) fail("trips %llu over %d of %d connections", (unsigned long long)n, active, count);
    measure(n, active, begin, trip_again);
}

/* Uses places of their own: there must be no connections. */
static void churn(uint64_t n, int active) {
    if (!http || count || active < 1 || n < (uint64_t)active) fail("churn %llu by %d", (unsigned long long)n, active);
    connections = calloc((size_t)active, sizeof *connections);
    if (!connections) fail("no memory");
    for (int i = 0; i < active; i++) {
        connections[i].answer = malloc(HEAD + bytes + 1);
        if (!connections[i].answer) fail("no memory");
    }
    churning = 1;
    measure(n, active, connect_to, churn_again);
    churning = 0;
    for (int i = 0; i < active; i++) free(connections[i].answer);
    free(connections);
    connections = NULL;
}

static void check(void) {
    done = 0;
    wanted = (uint64_t)count;
    for (next_check = 0; next_check < count && next_check < EVENTS;) begin(&connections[next_check++]);
    turn(check_next);
    printf("{\"checked\": %d}\n", count);
}

/* Echoes on all connections that come, by edges of epoll, until it is killed. */
static void serve(void) {
    static const int on = 1;
    static char buffer[1 << 16];
    socklen_t size = sizeof server;
    struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (bind(listener, (struct sockaddr *)&server, size) || listen(listener, 1024)
        || getsockname(listener, (struct sockaddr *)&server, &size)) fail("listen: %s", strerror(errno));
    event.data.fd = listener;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) fail("epoll_ctl: %s", strerror(errno));
    printf("%d\n", ntohs(server.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0) fail("accept: %s", strerror(errno));
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.fd = fd};
                if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl: %s", strerror(errno));
            }
            ssize_t got;
            while ((got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
                if (send(fd, buffer, (size_t)got, MSG_NOSIGNAL) != got) fail("send: %s", strerror(errno));
                if (got < (ssize_t)sizeof buffer) break; /* what comes later is an edge */
            }
            if (!got || (got < 0 && errno != EAGAIN)) close(fd);
        }
    }
}

int main(int argc, char **argv) {
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (argc == 2 && !strcmp(argv[1], "serve")) serve();
    const int json = argc == 4 && !strcmp(argv[1], "json");
    const int udp = argc == 4 && !strcmp(argv[1], "udp");
    if (argc != 4 || (!json && !udp && strcmp(argv[1], "echo") && strcmp(argv[1], "http"))) fail("usage: load echo|udp|http|json PORT BYTES, or load serve");
    if (udp) type = SOCK_DGRAM;
    http = json || !strcmp(argv[1], "http");
    bytes = strtoul(argv[3], NULL, 10);
    if (bytes < 16) fail("BYTES must be at least 16");
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    pattern = malloc(bytes);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!pattern || poller < 0) fail("no epoll: %s", strerror(errno));
    for (size_t i = 0; i < bytes; i++) pattern[i] = http ? 'x' : (char)(i * 131 + 7);
    if (json) {
        memcpy(pattern, "{\"message\":\"", 12);
        memcpy(pattern + bytes - 2, "\"}", 2);
    }
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long n;
        int active;
        if (sscanf(line, "open %llu", &n) == 1) open_more((int)n);
        else if (sscanf(line, "trips %llu %d", &n, &active) == 2) trips(n, active);
        else if (sscanf(line, "churn %llu %d", &n, &active) == 2) churn(n, active);
        else if (!strncmp(line, "check", 5)) check();
        else fail("unknown command: %s", line);
        fflush(stdout);
    }
    return 0;
}
