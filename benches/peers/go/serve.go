// The servers of the boundary workloads: `go-bench serve NAME` prints its port and serves.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err.Error())
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	return l
}

// Bytes that a server asks for at once: the messages of net_16k in one piece.
var received = 4096

func talk(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, received)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// BENCH_PAIR names the file with key and certificate.
func listenTLS() net.Listener {
	pair := os.Getenv("BENCH_PAIR")
	certificate, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil {
		fail(err.Error())
	}
	return tls.NewListener(listen(), &tls.Config{Certificates: []tls.Certificate{certificate}})
}

func serveUDP() {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		fail(err.Error())
	}
	fmt.Println(conn.LocalAddr().(*net.UDPAddr).Port)
	buffer := make([]byte, 2048)
	for {
		n, sender, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			fail(err.Error())
		}
		if _, err := conn.WriteToUDPAddrPort(buffer[:n], sender); err != nil {
			fail(err.Error())
		}
	}
}

func serveEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			fail(err.Error())
		}
		go talk(conn)
	}
}

func serveHTTP() {
	body := []byte(strings.Repeat("x", 120))
	handler := func(w http.ResponseWriter, r *http.Request) { w.Write(body) }
	fail(http.Serve(listen(), http.HandlerFunc(handler)).Error())
}

func serveJSON() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, _ := json.Marshal(map[string]string{"message": strings.Repeat("x", 106)})
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	}
	fail(http.Serve(listen(), http.HandlerFunc(handler)).Error())
}

func serve(name string) {
	if strings.HasSuffix(name, "16k") {
		received = 1 << 14
	}
	switch name {
	case "echo", "echo_64", "echo_16k", "net_64", "net_16k", "idle", "net_idle":
		serveEcho(listen())
	case "tls", "net_tls":
		serveEcho(listenTLS())
	case "udp":
		serveUDP()
	case "http", "http_2000":
		serveHTTP()
	case "json":
		serveJSON()
	default:
		fail("unknown server " + name)
	}
}
