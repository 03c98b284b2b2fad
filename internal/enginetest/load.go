package enginetest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// loadSteps is in how many steps memory on devices is taken over the start delay: two engines that both saw enough free when
// they started can so take it from each other.
const loadSteps = 4

// load takes the start delay, and takes memory on devices meanwhile.
func (s *server) load() error {
	plan, slow, err := planLoad(s.o)
	if err != nil {
		return err
	}
	if slow { // nobody is answered before it is ready
		s.o.TokenDelay *= 10
		s.events.add(Event{Name: EventSlow})
	}
	for step := 1; step <= loadSteps; step++ {
		for _, p := range plan {
			if err := s.hold(p, p.bytes*int64(step)/loadSteps+s.o.GPULoadExtra<<20); err != nil {
				return err
			}
		}
		time.Sleep(s.o.StartDelay / loadSteps)
	}
	for _, p := range plan {
		if err := s.hold(p, p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// part is what goes onto one device.
type part struct {
	name  string
	gpu   GPU
	bytes int64
}

// hold holds so much of a device, or fails as CUDA does.
func (s *server) hold(p part, bytes int64) error {
	ok, err := gpus(s.o.GPUDir).hold(p.gpu, bytes)
	if err != nil || ok {
		return err
	}
	s.events.add(Event{Name: EventNoRoom})
	number := strings.TrimPrefix(p.name, "CUDA")
	fmt.Fprintf(os.Stderr, "ggml_backend_cuda_buffer_type_alloc_buffer: allocating %.2f MiB on device %s: cudaMalloc failed: out of memory\n",
		float64(bytes)/(1<<20), number)
	fmt.Fprintf(os.Stderr, "llama_model_load: error loading model: unable to allocate %s buffer\n", p.name)
	return fmt.Errorf("failed to load model, '%s'\nmain: exiting due to model loading error", s.o.Model)
}

// planLoad says what goes where. An engine that was told nothing fits itself to what is free now, as llama-server does, and is
// ten times as slow with less than all.
func planLoad(o Options) (plan []part, slow bool, err error) {
	if o.GPUDir == "" || o.Layers == "0" || o.Device == "none" {
		return nil, false, nil
	}
	all, err := gpus(o.GPUDir).devices()
	if err != nil {
		return nil, false, err
	}
	plan, err = chosen(o, seen(all))
	if err != nil || len(plan) == 0 {
		return nil, false, err
	}
	total := o.GPUMemory << 20
	if n, err := strconv.Atoi(o.Layers); err == nil && o.GPULayers > 0 {
		total = total * int64(min(n, o.GPULayers)) / int64(o.GPULayers)
	}
	sum := 0.0
	shares := splits(o.TensorSplit, len(plan))
	for _, s := range shares {
		sum += s
	}
	for i := range plan {
		plan[i].bytes = int64(float64(total) * shares[i] / max(sum, 1e-9))
		if o.Layers == "" && o.Fit != "off" {
			free, err := gpus(o.GPUDir).freeNow(plan[i].gpu)
			if err != nil {
				return nil, false, err
			}
			slow = slow || free < plan[i].bytes
			plan[i].bytes = max(0, min(plan[i].bytes, free))
		}
	}
	return plan, slow, nil
}

// chosen returns the devices that --device names, or all.
func chosen(o Options, visible []GPU) ([]part, error) {
	var plan []part
	for i, d := range visible {
		plan = append(plan, part{name: "CUDA" + strconv.Itoa(i), gpu: d})
	}
	if o.Device == "" {
		return plan, nil
	}
	var named []part
	for name := range strings.SplitSeq(o.Device, ",") {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "CUDA"))
		if err != nil || n < 0 || n >= len(plan) {
			return nil, fmt.Errorf("error while handling argument \"--device\": invalid device: %s", name)
		}
		named = append(named, plan[n])
	}
	return named, nil
}

// splits returns n shares: as given, separated by commas, else even ones.
func splits(text string, n int) []float64 {
	shares := make([]float64, n)
	words := strings.Split(text, ",")
	for i := range shares {
		shares[i] = 1
		if text != "" {
			shares[i] = 0
			if i < len(words) {
				shares[i], _ = strconv.ParseFloat(words[i], 64)
			}
		}
	}
	return shares
}
