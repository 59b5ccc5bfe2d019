package aggregation

// Pack writes x to dst as little-endian two's complement integers of width
// bytes, 1 to 8, and returns it grown: what a contribution and a sum are on the
// wire. Coordinates are taken modulo 2^(8 width).
func Pack(dst []byte, x []int64, width int) []byte { panic("aggregation: to be built") }

// Unpack reads packed integers into dst, in the centred range. Fails with
// ErrLength unless packed holds len(dst) of them.
func Unpack(dst []int64, packed []byte, width int) error { panic("aggregation: to be built") }
