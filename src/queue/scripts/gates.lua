-- Who has to wait: rates (GCRA), pauses, busy destinations; and the last look at work before it is
-- handed out.
--
-- The only state of a rate is its theoretical arrival time (TAT): the moment at which everything
-- handed out so far would have been paid for at one per interval. In the past it is a full allowance.

-- A rate; nil when `interval` (microseconds) is 0, which is no limit.
local function open_rate(key, interval, burst)
  if interval <= 0 then return nil end
  local stored = redis.pcall('GET', key)
  local tat = natural(stored) or 0
  -- Never further ahead than a burst: else a step back of the clock would shut it for as long. That is
  -- written, or it would be a burst ahead again whenever somebody looks.
  local furthest = now_us + burst * interval
  local is_too_far = tat > furthest
  return { key = key, interval = interval, burst = burst, tat = math.min(tat, furthest), spent = is_too_far }
end

local function room_of(rate)
  if not rate then return math.huge end
  local room = math.floor((now_us - rate.tat) / rate.interval) + rate.burst
  return math.max(0, math.min(room, rate.burst))
end

local function tat_after(rate, number)
  return math.max(rate.tat, now_us) + number * rate.interval
end

-- The first millisecond at which a rate with this TAT has room for one.
local function opens_at(rate, tat)
  return math.ceil((tat - (rate.burst - 1) * rate.interval) / 1000)
end

local function spend(rate, number)
  if not rate or number == 0 then return end
  rate.tat = tat_after(rate, number)
  rate.spent = true
end

local function close_rate(rate)
  if not rate or not rate.spent then return end
  -- A TAT that has passed says nothing, so it may go then; a test's time may stand still meanwhile.
  local ttl = math.max(1, math.ceil((rate.tat - now_us) / 1000)) + (manual and HOUR or 0)
  redis.call('SET', rate.key, whole(rate.tat), 'PX', whole(ttl))
end

-- The rates of a lane's destinations, by destination, as far as they were asked for.
local function rates_of(lane, interval, burst)
  local opened = {}
  local function of(destination)
    if interval <= 0 then return nil end
    local rate = opened[destination]
    if not rate then
      rate = open_rate(PREFIX .. 'rl:' .. lane .. ':' .. destination, interval, burst)
      opened[destination] = rate
    end
    return rate
  end
  local function close()
    for _, rate in pairs(opened) do close_rate(rate) end
  end
  return of, close
end

-- The end of the pause of a destination, nil if it is not paused now.
local function held_until(lane, destination)
  local ends = moment(redis.call('ZSCORE', held_of(lane), destination))
  if ends and ends > now then return ends end
  return nil
end

-- Work that has seen several workers vanish. One of it is handed out at a time, so that a worker that
-- vanishes with it leaves no other such work one hand-out nearer to its end as poison.
local function is_suspect(handed)
  return handed >= SUSPECT_HAND_OUTS
end

-- To be looked at again a little later, without having been handed out.
local function put_off(piece)
  redis.call('ZADD', due_of(piece.lane), whole(now + BUSY_DELAY), member_of(piece))
  piece.place = 'd'
  write_piece(piece)
end

-- What the hand-out of a piece from `piece_in` carries, the entry's `number`th:
-- {name of the hand-out, id, index, payload, subscriber, recipient, destination, attempts, pauses, deadline, accepted
-- at, hand-outs}
local function work_item(piece, entry, number)
  local fields = piece.more
  list_deadline_later(piece.id, piece.deadline)
  return {
    lease_name(entry, number), piece.id, piece.index, fields[3] or '', fields[4] or '', fields[5] or '', piece.destination,
    piece.attempts, piece.pauses, piece.deadline, natural(fields[6]) or now,
    piece.handed + number,
  }
end
