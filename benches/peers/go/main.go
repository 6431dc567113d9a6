// The workloads of benches/workloads.toml in Go: `go-bench WORKLOAD N` prints one JSON line.
// GOMAXPROCS is read from the environment by the Go runtime itself.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	ringSize = 100
	senders  = 100
	workers  = 8
	keys     = 1000
)

var start time.Time

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}

func since() int64 { return time.Since(start).Nanoseconds() }

func spawn(n int) int64 {
	start = time.Now()
	for i := 0; i < n; i++ {
		go func() {}()
	}
	for runtime.NumGoroutine() > 1 {
		runtime.Gosched()
	}
	return since()
}

func errGroup(n int) int64 {
	var g errgroup.Group
	start = time.Now()
	for i := 0; i < n; i++ {
		g.Go(func() error { return nil })
	}
	if err := g.Wait(); err != nil {
		fail(err.Error())
	}
	return since()
}

func roundTrip(n int) int64 {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			pong <- v
		}
	}()
	start = time.Now()
	for i := 0; i < n; i++ {
		ping <- i
		<-pong
	}
	elapsed := since()
	close(ping)
	return elapsed
}

func ring(n int) int64 {
	rounds := n / ringSize
	first := make(chan int)
	in := first
	for i := 0; i < ringSize-1; i++ {
		out := make(chan int)
		go func(in, out chan int) {
			for v := range in {
				out <- v + 1
			}
		}(in, out)
		in = out
	}
	start = time.Now()
	v := 0
	for i := 0; i < rounds; i++ {
		first <- v
		v = <-in + 1
	}
	elapsed := since()
	if v != rounds*ringSize {
		fail("ring: wrong count")
	}
	return elapsed
}

func fanIn(n int) int64 {
	ch := make(chan int)
	each := n / senders
	start = time.Now()
	for i := 0; i < senders; i++ {
		go func() {
			for j := 0; j < each; j++ {
				ch <- 1
			}
		}()
	}
	sum := 0
	for i := 0; i < each*senders; i++ {
		sum += <-ch
	}
	elapsed := since()
	if sum != each*senders {
		fail("fan_in: wrong sum")
	}
	return elapsed
}

func select4(n int) int64 {
	chans := make([]chan int, 4)
	for i := range chans {
		chans[i] = make(chan int, n)
		for j := 0; j < n; j++ {
			chans[i] <- 1
		}
	}
	a, b, c, d := chans[0], chans[1], chans[2], chans[3]
	sum := 0
	start = time.Now()
	for i := 0; i < n; i++ {
		select {
		case v := <-a:
			sum += v
		case v := <-b:
			sum += v
		case v := <-c:
			sum += v
		case v := <-d:
			sum += v
		}
	}
	elapsed := since()
	if sum != n {
		fail("select4: wrong sum")
	}
	return elapsed
}

func yield(n int) int64 {
	done := make(chan int)
	spin := func() {
		for i := 0; i < n/2; i++ {
			runtime.Gosched()
		}
	}
	start = time.Now()
	go func() { spin(); close(done) }()
	spin()
	<-done
	return since()
}

func buffered(n int) int64 {
	ch := make(chan int, 1000)
	start = time.Now()
	go func() {
		for i := 0; i < n; i++ {
			ch <- 1
		}
		close(ch)
	}()
	sum := 0
	for v := range ch {
		sum += v
	}
	elapsed := since()
	if sum != n {
		fail("buffered: wrong sum")
	}
	return elapsed
}

func mutex(n int) int64 {
	var mu sync.Mutex
	var wg sync.WaitGroup
	count := 0
	start = time.Now()
	wg.Add(workers)
	for i := 0; i < workers; i++ {
		go func() {
			for j := 0; j < n/workers; j++ {
				mu.Lock()
				count++
				runtime.Gosched()
				mu.Unlock()
			}
			wg.Done()
		}()
	}
	wg.Wait()
	elapsed := since()
	if count != n/workers*workers {
		fail("mutex: wrong count")
	}
	return elapsed
}

func sleepers(n int) int64 {
	var wg sync.WaitGroup
	start = time.Now()
	wg.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			time.Sleep(10 * time.Millisecond)
			wg.Done()
		}()
	}
	wg.Wait()
	return since()
}

func sieve(n int) int64 {
	start = time.Now()
	ch := make(chan int)
	go func(ch chan<- int) {
		for i := 2; ; i++ {
			ch <- i
		}
	}(ch)
	for i := 0; i < n; i++ {
		prime := <-ch
		out := make(chan int)
		go func(in <-chan int, out chan<- int, prime int) {
			for {
				if v := <-in; v%prime != 0 {
					out <- v
				}
			}
		}(ch, out, prime)
		ch = out
	}
	return since()
}

func skynetNode(ch chan int, num, size int) {
	if size == 1 {
		ch <- num
		return
	}
	sub := make(chan int)
	for i := 0; i < 10; i++ {
		go skynetNode(sub, num+i*(size/10), size/10)
	}
	sum := 0
	for i := 0; i < 10; i++ {
		sum += <-sub
	}
	ch <- sum
}

func skynet(n int) int64 {
	ch := make(chan int)
	start = time.Now()
	go skynetNode(ch, 0, n)
	sum := <-ch
	elapsed := since()
	if sum != n*(n-1)/2 {
		fail("skynet: N must be a power of ten")
	}
	return elapsed
}

func contextCancel(n int) int64 {
	parent, cancel := context.WithCancel(context.Background())
	children, cancels := make([]context.Context, n), make([]context.CancelFunc, n)
	for i := range children {
		children[i], cancels[i] = context.WithCancel(parent)
	}
	start = time.Now()
	cancel()
	elapsed := since()
	for _, child := range children {
		if child.Err() == nil {
			fail("context_cancel: a child is not done")
		}
	}
	return elapsed
}

// steps computes with a Gosched after each step until stopped; it returns steps per nanosecond.
func steps(stopped func() bool) float64 {
	begun, count, total := time.Now(), 0, 0
	for !stopped() {
		for i := 0; i < 300; i++ {
			total += i
		}
		count++
		runtime.Gosched()
	}
	if total < 0 {
		fail("never")
	}
	return float64(count) / float64(time.Since(begun).Nanoseconds())
}

func blocking(n int) (int64, float64) {
	end := time.Now().Add(200 * time.Millisecond)
	alone := steps(func() bool { return !time.Now().Before(end) })
	var stop atomic.Bool
	rate := make(chan float64)
	go func() { rate <- steps(stop.Load) }()
	runtime.Gosched()
	var wg sync.WaitGroup
	start = time.Now()
	wg.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			time.Sleep(100 * time.Millisecond)
			wg.Done()
		}()
	}
	wg.Wait()
	elapsed := since()
	stop.Store(true)
	return elapsed, <-rate / alone
}

// ticker is how late a sleep of 10 ms ends beside ten goroutines that compute: sum, p50 and p99 in ns.
func ticker(n int) (int64, int64, int64) {
	var stop atomic.Bool
	for i := 0; i < 10; i++ {
		go func() {
			for steps := 0; !stop.Load(); steps++ {
			}
		}()
	}
	late := make([]int64, n)
	sum := int64(0)
	for i := range late {
		due := time.Now().Add(10 * time.Millisecond)
		time.Sleep(10 * time.Millisecond)
		late[i] = time.Since(due).Nanoseconds()
		sum += late[i]
	}
	stop.Store(true)
	slices.Sort(late)
	return sum, late[n/2], late[n*99/100]
}

func memory() int64 {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		fail(err.Error())
	}
	defer file.Close()
	total := int64(0)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 1 && (f[0] == "VmRSS:" || f[0] == "VmPTE:") {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			total += kb * 1024
		}
	}
	return total
}

//go:noinline
func three(gate chan int) int { return <-gate }

//go:noinline
func two(gate chan int) int { return three(gate) + 1 }

//go:noinline
func one(gate chan int) int { return two(gate) + 1 }

// Nanoseconds in all and to release them, and bytes of each.
func crowd(n int, settle func()) (int64, int64, float64) {
	gate, ready, done := make(chan int), make(chan int), make(chan int, n)
	body := func() {
		ready <- 1
		done <- one(gate)
	}
	fill := func(k int) {
		for i := 0; i < k; i++ {
			go body()
		}
		for i := 0; i < k; i++ {
			<-ready
		}
		runtime.Gosched()
	}
	base := n / 10
	start = time.Now()
	fill(base)
	settle()
	low := memory()
	fill(n - base)
	settle()
	high := memory()
	wake := time.Now()
	close(gate)
	sum := 0
	for i := 0; i < n; i++ {
		sum += <-done
	}
	elapsed, woken := since(), time.Since(wake).Nanoseconds()
	if sum != 2*n {
		fail("parked: goroutines lost")
	}
	return elapsed, woken, float64(high-low) / float64(n-base)
}

// syncMap does nine loads and a store of ten, on the keys in turn.
func syncMap(n int) int64 {
	var m sync.Map
	for i := 0; i < keys; i++ {
		m.Store(i, i)
	}
	sum := 0
	start = time.Now()
	for i := 0; i < n/keys; i++ {
		for key := 0; key < keys; key++ {
			if key%10 == 0 {
				m.Store(key, key)
			} else if v, ok := m.Load(key); ok {
				sum += v.(int)
			}
		}
	}
	elapsed := since()
	if sum == 0 {
		fail("sync_map: nothing loaded")
	}
	return elapsed
}

var works = map[string]func(int) int64{
	"spawn": spawn, "round_trip": roundTrip, "ring": ring, "fan_in": fanIn, "select4": select4,
	"yield": yield, "buffered": buffered, "mutex": mutex, "sleepers": sleepers, "sieve": sieve,
	"skynet": skynet, "sync_map": syncMap, "context_cancel": contextCancel,
	"errgroup": errGroup,
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--list" {
		for name := range works {
			fmt.Print(name, " ")
		}
		fmt.Println("parked wake trimmed blocking ticker")
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	if len(os.Args) != 3 {
		fail("usage: go-bench WORKLOAD N")
	}
	name := os.Args[1]
	n, err := strconv.Atoi(os.Args[2])
	if err != nil || n < 10 {
		fail("N must be a number of at least 10")
	}
	if name == "parked" || name == "wake" || name == "trimmed" {
		settle := func() {}
		if name == "trimmed" {
			settle = debug.FreeOSMemory
		}
		elapsed, woken, size := crowd(n, settle)
		if name != "parked" {
			elapsed = woken
		}
		fmt.Printf("{\"workload\": %q, \"n\": %d, \"ns_per_op\": %.2f, \"bytes\": %.1f}\n",
			name, n, float64(elapsed)/float64(n), size)
		return
	}
	if name == "blocking" {
		elapsed, share := blocking(n)
		fmt.Printf("{\"workload\": %q, \"n\": %d, \"ns_per_op\": %.2f, \"seconds\": %.3f, \"lone_share\": %.3f}\n",
			name, n, float64(elapsed)/float64(n), float64(elapsed)/1e9, share)
		return
	}
	if name == "ticker" {
		sum, p50, p99 := ticker(n)
		fmt.Printf("{\"workload\": %q, \"n\": %d, \"ns_per_op\": %.2f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
			name, n, float64(sum)/float64(n), float64(p50)/1e6, float64(p99)/1e6)
		return
	}
	work, known := works[name]
	if !known {
		fail("unknown workload " + name)
	}
	fmt.Printf("{\"workload\": %q, \"n\": %d, \"ns_per_op\": %.2f}\n", name, n, float64(work(n))/float64(n))
}
