// Two goroutines that take jobs, at the measurements of bench/parallel.lua. Prints lines `name seconds`.
package main

import (
	"fmt"
	"sync"
	"time"
)

func clock(name string, f func()) {
	began := time.Now()
	f()
	fmt.Println(name, time.Since(began).Seconds())
}

func main() {
	jobs := make(chan func(), 1000)
	for i := 0; i < 2; i++ {
		go func() {
			for f := range jobs {
				f()
			}
		}()
	}
	clock("one", func() {
		for i := 0; i < 1000; i++ {
			done := make(chan int)
			jobs <- func() { done <- 1 }
			<-done
		}
	})
	clock("many", func() {
		for k := 0; k < 20; k++ {
			var all sync.WaitGroup
			all.Add(1000)
			for i := 0; i < 1000; i++ {
				jobs <- func() { all.Done() }
			}
			all.Wait()
		}
	})
}
