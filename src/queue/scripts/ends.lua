-- How work ends: its piece, its message, the books and the letter.

-- What ended inside this call: {id, index, lane, subscriber, cause, attempts} each.
local buried = {}

-- Reads several fields of a record, however many: a call takes only so many arguments.
local function each_field(record, names, visit)
  for from = 1, #names, 500 do
    local some = { unpack(names, from, math.min(#names, from + 499)) }
    for at, value in ipairs(redis.call('HMGET', record, unpack(some))) do visit(some[at], value) end
  end
end

-- Counts the pieces of a record that are pending, and its letters.
local function recount(record)
  local pending, letters, states = 0, 0, {}
  for _, field in ipairs(redis.call('HKEYS', record)) do
    if string.match(field, '^s%d+$') then states[#states + 1] = field end
    if string.match(field, '^x%d+$') then letters = letters + 1 end
  end
  each_field(record, states, function(_, state)
    if state and not string.match(state, '^[SDXE]|') then pending = pending + 1 end
  end)
  return pending, letters
end

-- Adds to a count of a record, `left` (pending pieces) or `lt` (letters). Texts go when it comes to
-- nothing, so it is then taken from the pieces, which the caller has already changed; and so it is when
-- it cannot be right.
local function count(record, field, by)
  local stored = redis.call('HGET', record, field)
  -- A message begins without a count of letters.
  if field == 'lt' and not stored then stored = '0' end
  local value = natural(stored)
  value = value and value + by
  if value and value > 0 then
    redis.call('HSET', record, field, whole(value))
    return value
  end
  local pending, letters = recount(record)
  redis.call('HSET', record, 'left', pending, 'lt', letters)
  return field == 'left' and pending or letters
end

-- Sets when the server itself frees a record that goes. What reads it goes by its field `gone`; the memory is
-- freed later where letters are still to be unlisted, or where a test's time may stand still.
local function expire_record(record, has_letters)
  local slack = (has_letters or manual) and HOUR or 0
  redis.call('PEXPIRE', record, whole(retention_ms + slack))
end

-- Sets when a record goes.
local function let_go(record, has_letters)
  redis.call('HSET', record, 'gone', whole(now + retention_ms))
  expire_record(record, has_letters)
end

-- Fields of a record that the server may store compactly.
local COMPACT = 100

-- Makes a record anew of `fields`, names and values: once too long to be stored compactly, by its text, it
-- would stay so, at three times the memory, for as long as it is kept.
local function remake(record, fields)
  redis.call('DEL', record)
  set_fields(record, fields)
end

-- A message without pending work: its text goes unless a letter needs it, and in time all the rest.
local function message_ended(id)
  local record = record_of(id)
  local letters = natural(redis.call('HGET', record, 'lt')) or 0
  if letters <= 0 then
    redis.call('HDEL', record, 'ct')
    if redis.call('HLEN', record) <= COMPACT then remake(record, redis.call('HGETALL', record)) end
  end
  redis.call('ZREM', DEADLINES, id)
  let_go(record, letters > 0)
end

-- Forgets a letter: text, recipient and history go with it.
local function drop_letter(cause, id, index)
  redis.call('ZREM', letters_of(cause), id .. '|' .. index)
  local record = record_of(id)
  local letter = redis.pcall('HGET', record, 'x' .. index)
  -- The record may have gone, or lead a new life.
  if type(letter) ~= 'string' or string.match(letter, '^(%a+)|') ~= cause then return false end
  redis.call('HDEL', record, 'x' .. index, 'rc' .. index, 'h' .. index)
  if count(record, 'lt', -1) == 0 and redis.call('HGET', record, 'left') == '0' then
    redis.call('HDEL', record, 'ct')
  end
  return true
end

-- Drops the oldest letters beyond the number kept, at most `limit`. Returns whether more are too many.
local function make_room_for_letters(cause, limit)
  local surplus = redis.call('ZCARD', letters_of(cause)) - letter_cap
  if surplus <= 0 then return false end
  local oldest = redis.call('ZRANGE', letters_of(cause), 0, math.min(surplus, limit) - 1)
  for _, member in ipairs(oldest) do
    local id, index = read_member(member)
    if id then drop_letter(cause, id, index) else redis.call('ZREM', letters_of(cause), member) end
  end
  return surplus > limit
end

-- Ends a piece that has left its place. With `cause` it becomes a letter.
local function end_piece(piece, state, cause)
  local record, index = record_of(piece.id), piece.index
  piece.state, piece.place, piece.handed = state, '', 0
  write_piece(piece)
  tally(state, 1)
  if cause then
    secure(letters_of(cause), 'zset')
    redis.call('HSET', record, 'x' .. index, cause .. '|' .. whole(now))
    count(record, 'lt', 1)
    redis.call('ZADD', letters_of(cause), whole(now), member_of(piece))
    make_room_for_letters(cause, 2)
  else
    redis.call('HDEL', record, 'rc' .. index, 'h' .. index)
  end
  if count(record, 'left', -1) == 0 then message_ended(piece.id) end
end

-- What is kept of a message that has arrived everywhere, as names and values: a piece whose index is in `states`
-- now says what is there. nil if another piece has not ended or is a letter.
local function rest_of(record, states)
  local rest, fields = {}, redis.call('HGETALL', record)
  for at = 1, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    local kind, number = string.match(name, '^(%a+)(%d*)$')
    local is_of_a_piece = number ~= ''
    if kind == 's' and is_of_a_piece then
      value = states[tonumber(number)] or value
      if not string.match(value, '^[SE]|') then return nil end
    elseif kind == 'x' and is_of_a_piece then
      return nil
    end
    local goes = kind == 'ct' or kind == 'lt' or kind == 'left' or kind == 'gone'
      or is_of_a_piece and (kind == 'rc' or kind == 'h' or kind == 'f')
    if not goes then
      rest[#rest + 1] = name
      rest[#rest + 1] = value
    end
  end
  return rest
end

-- Deliveries of a message whose record is read as a whole when the last of them has ended.
local FEW = 32

-- Messages that have arrived everywhere: their deadlines are unlisted at the end of the call.
local arrived = {}

local function unlist_arrived()
  for from = 1, #arrived, 500 do
    redis.call('ZREM', DEADLINES, unpack(arrived, from, math.min(#arrived, from + 499)))
  end
  arrived = {}
end

-- Makes the record of a message that has arrived everywhere anew, of the `rest` that is kept.
local function message_arrived(id, rest)
  local record, size = record_of(id), #rest
  rest[size + 1], rest[size + 2], rest[size + 3], rest[size + 4] = 'left', '0', 'gone', whole(now + retention_ms)
  remake(record, rest)
  expire_record(record, false)
  arrived[#arrived + 1] = id
end

-- Ends a piece that has left its place, read with `left` and `n` of its record, as delivered: what
-- `end_piece` does, in as few commands as it takes.
local function end_delivered(piece)
  local record, index, left = record_of(piece.id), piece.index, natural(piece.more[3])
  if not left or left < 1 then return end_piece(piece, 'S', nil) end
  piece.state, piece.place, piece.handed = 'S', '', 0
  local state = state_of(piece)
  if left > 1 then
    tally_later('S', 1)
    redis.call('HSET', record, 's' .. index, state, 'left', whole(left - 1))
    redis.call('HDEL', record, 'rc' .. index, 'h' .. index)
    return
  end
  local rest = (read_index(piece.more[4]) or FEW + 1) <= FEW and rest_of(record, { [index] = state })
  if not rest then return end_piece(piece, 'S', nil) end
  tally_later('S', 1)
  message_arrived(piece.id, rest)
end

-- Ends a piece that has left its place as dead or expired.
local function bury(piece, cause)
  local subscriber = redis.call('HGET', record_of(piece.id), 'sub') or ''
  end_piece(piece, cause == 'expired' and 'X' or 'D', cause)
  buried[#buried + 1] = { piece.id, piece.index, piece.lane, subscriber, cause, piece.attempts }
end

-- Buries a piece whose fields cannot be read, in its own record, which keeps text and recipient. false
-- without a record, or when it had ended before.
local function bury_unreadable(lane, id, index)
  if not has_record(id) then return false end
  local record = record_of(id)
  if string.match(redis.call('HGET', record, 's' .. index) or '', '^[SDXE]|') then return false end
  if index > 0 then
    local route = read_route(redis.call('HGET', record, 'r' .. index))
    if route and route ~= 'in' then
      lane = route
    else
      if lane == 'in' then lane = 'unknown' end
      redis.call('HSET', record, 'r' .. index, lane .. '||')
    end
  end
  bury({
    id = id, index = index, lane = lane, destination = '', attempts = 0, pauses = 0, handed = 0,
    maybe = index > 0 and '1' or '0', deadline = now, place = '',
  }, 'poison')
  return true
end

-- Buries an entry that names no work, with its fields, under an id of its own. `was_counted`: it is what is
-- left of work that is on the books.
local function bury_raw(lane, entry, fields, was_counted)
  local name = 'raw:' .. lane .. '-' .. entry
  local id, again = name, 1
  while redis.call('EXISTS', record_of(id)) == 1 do
    again = again + 1
    id = name .. '-' .. again
  end
  local lines = {}
  for at = 1, #fields, 2 do lines[#lines + 1] = fields[at] .. '=' .. (fields[at + 1] or '') end
  local record = record_of(id)
  redis.call('HSET', record, 'acc', whole(now), 'left', 0, 'lt', 1, 'raw', 1, 'ct', table.concat(lines, '\n'),
    's0', 'D|0|0|0|0|' .. whole(now) .. '|', 'r0', lane .. '||', 'x0', 'poison|' .. whole(now))
  let_go(record, true)
  if not was_counted then tally('made', 1) end
  tally('D', 1)
  secure(letters_of('poison'), 'zset')
  redis.call('ZADD', letters_of('poison'), whole(now), id .. '|0')
  make_room_for_letters('poison', 2)
  buried[#buried + 1] = { id, 0, lane, '', 'poison', 0 }
end

-- Buries what stands at `place` in the name of work whose record is lost: that it was lost must not be lost
-- too.
local function bury_lost(lane, place, id, index)
  local hash = string.sub(redis.sha1hex(id .. '|' .. index), 1, 16)
  bury_raw(lane, place .. '-' .. hash, { 'm', id, 'i', index }, true)
end

-- Whether a message was accepted and its record's time is not over. A record without a routing is none of
-- ours: it must not keep a message out.
-- The second result: whether something stands there nevertheless.
local function is_known(id)
  if not has_record(id) then return false, false end
  local head = redis.call('HMGET', record_of(id), 's0', 'gone')
  local gone = natural(head[2])
  return head[1] ~= false and not (gone and gone <= now), true
end

-- Removes what stands where the record of a message is to be that is not known.
local function make_way(id)
  if not has_record(id) then return end
  if redis.call('HEXISTS', record_of(id), 's0') == 1 then
    redis.call('DEL', record_of(id))
  else
    set_aside(record_of(id))
    count_orphan()
  end
end

-- What an entry names: id, index, whether it comes from the park; nil if it names no work.
local function read_entry(fields)
  local id, index, woken
  for at = 1, #fields - 1, 2 do
    if fields[at] == 'm' then id = fields[at + 1] end
    if fields[at] == 'i' then index = fields[at + 1] end
    if fields[at] == 'w' then woken = fields[at + 1] end
  end
  if not id or not index or not is_message_id(id) then return nil end
  index = read_index(index)
  if not index then return nil end
  return id, index, woken == '1'
end

-- Takes an entry out of its lane that cannot be worked, and buries what it was.
local function quarantine(lane, entry, fields)
  drop_entry(lane, entry)
  local id, index = read_entry(fields)
  if not id then
    bury_raw(lane, entry, fields, false)
  elseif not bury_unreadable(lane, id, index) then
    bury_raw(lane, entry, fields, not has_record(id))
  end
end

-- Whether an entry id comes after another. They are longer than a number of Lua is exact.
local function is_after(one, other)
  local ms, seq = string.match(one, '^0*(%d+)%-0*(%d+)$')
  local other_ms, other_seq = string.match(other, '^0*(%d+)%-0*(%d+)$')
  if #ms ~= #other_ms then return #ms > #other_ms end
  if ms ~= other_ms then return ms > other_ms end
  if #seq ~= #other_seq then return #seq > #other_seq end
  return seq > other_seq
end

-- Whether a pending piece is not where its record says, so that nothing would ever hand it out.
local function is_lost(piece)
  local entry = string.match(piece.place, '^e(%d+%-%d+)$')
  if entry then
    local there = look('XRANGE', stream_of(piece.lane), entry, entry)
    there = there and there[1]
    if not there then return true end
    local id, index = read_entry(there[2])
    if id ~= piece.id or index ~= piece.index then
      -- A new stream may use the old one's entry ids.
      piece.place = ''
      return true
    end
    if lease_of(piece.lane, entry) then return false end
    -- Not leased and before what the group reads next: acknowledged by somebody else.
    local last = last_delivered(piece.lane)
    return last ~= nil and not is_after(entry, last)
  end
  if piece.place == 'd' then
    local due = moment(redis.call('ZSCORE', due_of(piece.lane), member_of(piece)))
    -- What would be due later has ended instead of being delayed.
    return due == nil or due >= piece.deadline
  end
  if piece.place == 'k' then
    return not redis.call('ZSCORE', park_of(piece.lane), parked_member_of(piece))
  end
  return true
end

-- Puts a pending piece back into its lane if it is lost; sees to it that it is woken if it is parked.
-- Returns whether it was lost, and whether nothing would have woken it.
local function put_back_if_lost(piece)
  if is_lost(piece) then
    leave_place(piece)
    enlist(piece.lane)
    make_ready(piece, false)
    return true
  end
  if piece.place == 'k' then
    local wake = wake_of(piece.lane)
    local set = moment(redis.call('ZSCORE', wake, piece.destination))
    -- Looking in vain now and then costs nothing; a moment that somebody wrote may be far away.
    if not set or set > now + HOUR then
      redis.call('ZADD', wake, whole(now), piece.destination)
      return false, true
    end
  end
  return false, false
end

-- Removes what somebody wrote, or left behind, in the name of a piece that is elsewhere; `piece` is nil
-- if there is none.
local function drop_stray(piece)
  count_orphan()
  if piece and piece.state == 'P' then put_back_if_lost(piece) end
end

-- The piece that an entry which was just read stands for, with what its hand-out carries, and whether it
-- comes from the park; nil if it stands for none, and then the entry is gone and what it was is buried.
local function piece_in(lane, entry, fields)
  local id, index, woken = read_entry(fields)
  if not id then return quarantine(lane, entry, fields) end
  local piece, is_unreadable = read_piece(id, index, 'ct', 'sub', 'rc' .. index, 'acc')
  if is_unreadable or (not piece and not has_record(id)) then return quarantine(lane, entry, fields) end
  if not is_at(piece, entry) or piece.lane ~= lane then
    drop_entry(lane, entry)
    return drop_stray(piece)
  end
  return piece, woken
end

-- Ends a piece that was read as `entry` and must not be handed out, for the `handed`th time; whether it
-- did.
local function end_if_unfit(piece, entry, handed)
  local cause = handed > MAX_HAND_OUTS and 'poison' or piece.deadline <= now and 'expired' or nil
  if not cause then return false end
  drop_entry(piece.lane, entry)
  bury(piece, cause)
  return true
end
