package rounds

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// Bounds of what one attempt, or all jobs to be created, may have staged:
// nodes are trusted, bugs are not. What was staged first makes room.
const (
	maxState       = 256 << 20 // bytes
	maxStaged      = 512 << 20 // bytes, of the blobs once they are whole
	maxStagedBlobs = 64
)

// staging holds the blobs that are being staged, in the order of their first
// pieces.
type staging []*StagedBlob

func (s staging) find(job string, d Digest) int {
	return slices.IndexFunc(s, func(b *StagedBlob) bool { return b.Job == job && b.Digest == d })
}

// put writes a piece of a blob of c.Size bytes, 1 to maxState. A piece may
// replace another: the digest of the whole decides which of them was right,
// and nobody can spoil a blob for good.
func (s *staging) put(c Stage) *Refusal {
	end := c.Offset + int64(len(c.Piece))
	switch {
	case len(c.Piece) == 0:
		return refuse(Malformed, "the piece is empty")
	case c.Offset < 0 || c.Offset > c.Size || end > c.Size:
		return refuse(Malformed, "a piece of %d bytes at %d is not part of %d bytes", len(c.Piece), c.Offset, c.Size)
	}
	i := s.find(c.Job, c.Digest)
	if i >= 0 && (*s)[i].Size != c.Size {
		return refuse(Malformed, "%d bytes and %d bytes have the same digest", c.Size, (*s)[i].Size)
	}
	if there := s.there(i); c.Offset > there {
		return refuse(NotStaged, "%d bytes are there, and the piece is for %d", there, c.Offset)
	}
	if i < 0 {
		i = s.begin(c)
	}
	b := (*s)[i]
	old := min(end, int64(len(b.Bytes))) - c.Offset // bytes of the piece that are there already
	if !bytes.Equal(b.Bytes[c.Offset:c.Offset+old], c.Piece[:old]) {
		b.Bytes = append(make([]byte, 0, c.Size), b.Bytes...) // a snapshot may share the old ones
		copy(b.Bytes[c.Offset:], c.Piece[:old])
	}
	b.Bytes = append(b.Bytes, c.Piece[old:]...)
	return nil
}

// there is how much of blob i is there, none of blob -1.
func (s staging) there(i int) int64 {
	if i < 0 {
		return 0
	}
	return int64(len(s[i].Bytes))
}

// begin makes room for a blob and returns its index.
func (s *staging) begin(c Stage) int {
	size := c.Size
	for _, b := range *s {
		size += b.Size
	}
	for len(*s) == maxStagedBlobs || size > maxStaged {
		size -= (*s)[0].Size
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, &StagedBlob{
		Job: c.Job, Round: c.Round, Attempt: c.Attempt,
		Digest: c.Digest, Size: c.Size, Bytes: make([]byte, 0, c.Size),
	})
	return len(*s) - 1
}

// resolve returns a blob's bytes, its own or those staged, once their digest is
// that of the blob.
func (s staging) resolve(job string, b Blob) ([]byte, *Refusal) {
	if b.Size < 1 || b.Size > maxState {
		return nil, refuse(Malformed, "a blob of %d bytes, want 1 to %d", b.Size, maxState)
	}
	if len(b.Bytes) == 0 {
		i := s.find(job, b.Digest)
		if there := s.there(i); there < b.Size {
			return nil, refuse(NotStaged, "%d of %d bytes are there", there, b.Size)
		}
		b.Bytes = s[i].Bytes
	}
	if int64(len(b.Bytes)) != b.Size {
		return nil, refuse(Malformed, "%d bytes are given as %d", len(b.Bytes), b.Size)
	}
	if sha256.Sum256(b.Bytes) != b.Digest {
		return nil, refuse(WrongDigest, "the bytes are not those of digest %x", b.Digest[:8])
	}
	return b.Bytes, nil
}

// drop forgets a blob.
func (s *staging) drop(job string, d Digest) {
	if i := s.find(job, d); i >= 0 {
		*s = slices.Delete(*s, i, i+1)
	}
}

// dropJob forgets a job's blobs.
func (s *staging) dropJob(job string) {
	*s = slices.DeleteFunc(*s, func(b *StagedBlob) bool { return b.Job == job })
}
