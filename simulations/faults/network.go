package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// network is the connections between nodes, each through a proxy, so that
// what one node sends to another can be held back: as a network that loses
// packets does to TCP, for as long as it does.
type network struct {
	pid func(node int) int

	mu      sync.Mutex
	changed chan struct{} // closed when blocked changes
	blocked map[[2]int]bool
	proxies []net.Listener
	open    map[net.Conn]bool
}

func newNetwork() *network {
	return &network{changed: make(chan struct{}), blocked: map[[2]int]bool{}, open: map[net.Conn]bool{}}
}

// via is a cluster's Via.
func (n *network) via(node int, peer string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	n.mu.Lock()
	n.proxies = append(n.proxies, l)
	n.mu.Unlock()
	go n.accept(l, node, peer)
	return l.Addr().String(), nil
}

func (n *network) accept(l net.Listener, to int, peer string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			from := n.owner(in)
			out, err := net.Dial("tcp", peer)
			if err != nil {
				in.Close()
				return
			}
			n.track(in, true)
			n.track(out, true)
			var wait sync.WaitGroup
			wait.Go(func() { n.pump(out, in, from, to) })
			wait.Go(func() { n.pump(in, out, to, from) })
			wait.Wait()
			n.track(in, false)
			n.track(out, false)
		}()
	}
}

func (n *network) track(c net.Conn, open bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if open {
		n.open[c] = true
	} else {
		delete(n.open, c)
	}
}

// pump carries what from sends to to, while it may.
func (n *network) pump(dst, src net.Conn, from, to int) {
	defer dst.Close()
	defer src.Close()
	buffer := make([]byte, 64<<10)
	for {
		k, err := src.Read(buffer)
		n.wait(from, to)
		if _, werr := dst.Write(buffer[:k]); err != nil || werr != nil {
			return
		}
	}
}

// wait returns once from's bytes reach to.
func (n *network) wait(from, to int) {
	for {
		n.mu.Lock()
		blocked, changed := n.blocked[[2]int{from, to}], n.changed
		n.mu.Unlock()
		if !blocked {
			return
		}
		<-changed
	}
}

// block holds back what nodes send to others, pair by pair; block() heals.
// What waited then arrives, as it does with TCP; or the connections are broken,
// as they are after minutes.
func (n *network) block(broken bool, pairs ...[2]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocked = map[[2]int]bool{}
	for _, p := range pairs {
		n.blocked[p] = true
	}
	if broken {
		for c := range n.open {
			c.Close()
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *network) close() {
	n.mu.Lock()
	for _, l := range n.proxies {
		l.Close()
	}
	n.mu.Unlock()
	n.block(true)
}

// owner is the node whose process holds the other end of a connection, -1 if
// that is none: a client's port says nothing, but the kernel knows whose it is.
func (n *network) owner(c net.Conn) int {
	port := c.RemoteAddr().(*net.TCPAddr).Port
	inode := socketInode(port)
	if inode == "" || n.pid == nil {
		return -1
	}
	n.mu.Lock()
	nodes := len(n.proxies)
	n.mu.Unlock()
	for node := range nodes {
		dir := fmt.Sprintf("/proc/%d/fd", n.pid(node))
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if target, err := os.Readlink(dir + "/" + e.Name()); err == nil && target == "socket:["+inode+"]" {
				return node
			}
		}
	}
	return -1
}

// socketInode finds the connected socket with a local port on 127.0.0.1.
func socketInode(port int) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	local := fmt.Sprintf("0100007F:%04X", port)
	lines := bufio.NewScanner(io.Reader(f))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == local {
			return fields[9]
		}
	}
	return ""
}
