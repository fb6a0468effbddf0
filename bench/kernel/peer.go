// Go at the measurements of bench/kernel.lua, on one processor. Prints lines `name nanoseconds` (CPU time for one),
// `sleepers` in seconds, `bytes` in bytes of RSS.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func cpu() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

func rss() float64 {
	var size, resident float64
	text, _ := os.ReadFile("/proc/self/statm")
	fmt.Sscan(string(text), &size, &resident)
	return resident * float64(os.Getpagesize())
}

func spawn(n int) {
	for i := 0; i < n; i++ {
		done := make(chan struct{})
		go func() { close(done) }()
		<-done
	}
}

func hand(n int) {
	a, b := make(chan int), make(chan int)
	go func() {
		for v := range a {
			b <- v
		}
		close(b)
	}()
	for i := 0; i < n/2; i++ {
		a <- i
		<-b
	}
	close(a)
	<-b
}

func zero(n int) {
	for i := 0; i < n; i++ {
		<-time.After(0)
	}
}

func sleepers(n int) (float64, float64) {
	before, began := rss(), cpu()
	var all, asleep sync.WaitGroup
	all.Add(n)
	asleep.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			asleep.Done()
			time.Sleep(time.Second)
			all.Done()
		}()
	}
	asleep.Wait()
	size := (rss() - before) / float64(n)
	all.Wait()
	return (cpu() - began) / 1e9, size
}

func main() {
	runtime.GOMAXPROCS(1)
	for _, m := range []struct {
		name string
		f    func(int)
	}{{"spawn", spawn}, {"switch", hand}, {"zero", zero}} {
		n := 200000
		m.f(n / 10)
		began := cpu()
		m.f(n)
		fmt.Println(m.name, (cpu()-began)/float64(n))
	}
	seconds, size := sleepers(100000)
	fmt.Println("sleepers", seconds)
	fmt.Println("bytes", size)
}
